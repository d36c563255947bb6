#!/usr/bin/env bash
# Trains as a Slurm job, one task per process.
set -euo pipefail

usage() {
    cat >&2 <<END
usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [arguments of train.py]
GPUS (8) tasks, GPUS_PER_NODE (8, or GPUS if that is less) of them on a node,
CPUS_PER_TASK (5); SRUN_ARGS: more arguments for srun; GRES: what to ask of
each node (gpu:GPUS_PER_NODE), empty for tasks that run on the CPU.
Inside an sbatch job that Slurm has requeued, it resumes from WORK_DIR.
END
    exit 2
}

[[ $# -ge 4 ]] || usage
partition=$1
job_name=$2
config=$3
work_dir=$4
shift 4

gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
gres=${GRES-gpu:$per_node}
read -ra more <<< "${SRUN_ARGS:-}"

# Slurm counts how often it has restarted a job. If an earlier start has saved a
# checkpoint, the job resumes from the last one, whatever --resume was given.
if [[ ${SLURM_RESTART_COUNT:-0} -gt 0 && -f $work_dir/last_checkpoint ]]; then
    set -- "$@" --resume
fi

tools=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}

# The port is chosen in the job, from its number (fgc_mm/cli/launch.py).
exec srun -p "$partition" \
    --job-name="$job_name" \
    ${gres:+--gres="$gres"} \
    --ntasks="$gpus" \
    --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${more[@]+"${more[@]}"} \
    "${PYTHON:-python}" -u "$tools/train.py" "$config" \
    --work-dir="$work_dir" --launcher=slurm "$@"
