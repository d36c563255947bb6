#!/usr/bin/env bash
# Trains in several processes of this machine, or of NNODES machines.
set -euo pipefail

usage() {
    cat >&2 <<END
usage: $0 CONFIG GPUS [arguments of train.py]
GPUS processes per machine, one for each GPU, or on the CPU if there is none.
For several machines set NNODES, NODE_RANK, MASTER_ADDR and PORT (29500).
END
    exit 2
}

[[ $# -ge 2 && $2 =~ ^[1-9][0-9]*$ ]] || usage
config=$1
gpus=$2
shift 2

tools=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}

if [[ ${NNODES:-1} == 1 && -z ${PORT:-} ]]; then
    # finds a free port, so several runs can share the machine
    rendezvous=(--standalone)
else
    rendezvous=(
        --nnodes="${NNODES:-1}"
        --node_rank="${NODE_RANK:-0}"
        --master_addr="${MASTER_ADDR:-127.0.0.1}"
        --master_port="${PORT:-29500}"
    )
fi

exec "${PYTHON:-python}" "$tools/torchrun.py" "${rendezvous[@]}" \
    --nproc_per_node="$gpus" \
    "$tools/train.py" "$config" --launcher pytorch "$@"
