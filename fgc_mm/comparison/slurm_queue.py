"""States of jobs, from Slurm's queue."""

import os
import subprocess

UNKNOWN = 'unknown to Slurm'
ANSWER_SECONDS = 120.0  # for squeue, which retries by itself for some time
# states of a job that Slurm does not run again
OVER = {
    'BOOT_FAIL', 'CANCELLED', 'COMPLETED', 'DEADLINE', 'FAILED', 'NODE_FAIL',
    'OUT_OF_MEMORY', 'PREEMPTED', 'REVOKED', 'TIMEOUT', UNKNOWN,
}  # fmt: skip


def queue_states() -> dict[str, str] | None:
    """State of each job of this user, by id; None if Slurm does not answer.

    Slurm forgets a job some minutes after its end. (sacct does not, but works
    only where the cluster stores its jobs in a database.)
    """
    # without the user's defaults of squeue, such as SQUEUE_PARTITION
    own = {k: v for k, v in os.environ.items() if 'SQUEUE_' not in k}
    try:
        done = subprocess.run(
            [
                'squeue', '--noheader', '--states=all', '--format=%i|%T',
                f'--user={os.getuid()}',
            ],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            errors='replace', timeout=ANSWER_SECONDS, env=own,
            start_new_session=True,  # so that Ctrl-C does not end it
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        return None
    lines = (line.partition('|') for line in done.stdout.split())
    return {number: state for number, _, state in lines}
