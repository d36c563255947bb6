"""``--slurm``: the parameters of every job of a comparison."""

from __future__ import annotations

import math
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FGCError, check_choice
from .slurm_job import SAVE_SECONDS

if TYPE_CHECKING:
    from submitit import Executor

PROGRAMS = 'sbatch', 'srun', 'squeue', 'scancel'
# submitit's names, without those of jobs with several processes
WHOLE = 'cpus_per_task', 'gpus_per_node', 'timeout_min'  # whole numbers
GENERIC = *WHOLE, 'mem_gb'  # numbers, for every cluster of submitit
OF_SLURM = (
    'account', 'comment', 'constraint', 'exclude', 'gres', 'mail_type',
    'mail_user', 'mem_per_cpu', 'mem_per_gpu', 'nodelist', 'partition',
    'qos', 'wckey',
)  # fmt: skip


def slurm_options(pairs: Sequence[str]) -> dict[str, Any]:
    """The parameters of ``NAME=VALUE`` pairs.

    Raises:
        FGCError: A name is unknown, a value is not a number, or there is no
            ``timeout_min``.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, _, text = pair.partition('=')
        check_choice(
            f'{name!r} of --slurm {pair}', name, sorted(GENERIC + OF_SLURM)
        )
        if not text:
            raise FGCError(f'--slurm {pair} has no value; write {name}=VALUE.')
        options[name] = _number(name, text) if name in GENERIC else text
    if 'timeout_min' not in options:
        raise FGCError(
            '--slurm has no timeout_min, without which submitit asks for 5 '
            'minutes; add timeout_min=MINUTES, the time limit of a job.'
        )
    return options


def submitit_executor(options: dict[str, Any], folder: Path) -> Executor:
    """Submitit's executor with these parameters.

    Args:
        options: As :func:`slurm_options` returns them.
        folder: Folder of the scripts, logs and results of the jobs.

    Raises:
        FGCError: Slurm or submitit is missing.
    """
    for program in PROGRAMS:
        if shutil.which(program) is None:
            raise FGCError(
                f'--slurm needs {program}, which is not in a folder of PATH; '
                'give the command on a node of a Slurm cluster, or without '
                '--slurm.'
            )
    try:
        import submitit
    except ModuleNotFoundError:
        raise FGCError(
            '--slurm needs submitit, which is not installed; run '
            '`pip install submitit`.'
        ) from None
    _forget_own_job()
    executor = submitit.AutoExecutor(folder, cluster='slurm')
    cores = options.get('cpus_per_task', 1)
    executor.update_parameters(
        slurm_additional_parameters={'signal': f'USR1@{SAVE_SECONDS}'},
        # since Slurm 22.05 srun does not inherit the number from sbatch
        slurm_srun_args=[f'--cpus-per-task={cores}'],
        slurm_setup=_setup(),
        **{k if k in GENERIC else f'slurm_{k}': options[k] for k in options},
    )
    return executor


def _forget_own_job() -> None:
    """Removes variables of a job in which this process runs.

    Otherwise sbatch would pass them on.
    """
    if 'SLURM_JOB_ID' in os.environ:
        for name in [x for x in os.environ if x.startswith('SLURM_')]:
            if name != 'SLURM_CONF':
                del os.environ[name]


def _setup() -> list[str]:
    """Commands with which a job imports the same package as this process."""
    root = Path(__file__).resolve().parents[2]
    if not (root / 'setup.cfg').is_file():
        return []
    path = shlex.quote(str(root))
    return [f'export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}']


def _number(name: str, text: str) -> float:
    try:
        number = int(text) if name in WHOLE else float(text)
    except ValueError:
        number = 0
    if not 0 < number < math.inf:
        kind = 'whole number' if name in WHOLE else 'number'
        raise FGCError(
            f'--slurm {name}={text} is not a positive {kind}; give one.'
        )
    return number
