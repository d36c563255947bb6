"""Joins the process group of a distributed run, with or without GPUs.

mmengine needs one GPU per process: its ``init_dist`` calls
``torch.cuda.set_device``, and its wrapper passes a device number. Without a
GPU, this module creates a gloo group first, which the Runner then uses, and
sets a model wrapper without devices.
"""

import atexit
import os
import re
import socket
import subprocess
import sys
from datetime import timedelta

import torch
from mmengine.config import Config
from torch import distributed as dist

from fgc_mm.errors import FGCError
from fgc_mm.reliability.device_agreement import check_devices
from fgc_mm.reliability.timeout import collective_timeout, set_timeout

_HINTS = {
    'pytorch': 'start with tools/dist_train.sh, tools/dist_test.sh or '
    'torchrun',
    'slurm': 'start with tools/slurm_train.sh, tools/slurm_test.sh or srun',
    'mpi': 'start with mpirun and set MASTER_ADDR',
}


def join_processes(cfg: Config, launcher: str) -> None:
    """Prepares this process for training or testing with several processes.

    Args:
        cfg: The Runner's config; ``model_wrapper_cfg`` is set in it if there
            is no GPU.
        launcher: none, pytorch, slurm or mpi (``--launcher``).

    Raises:
        FGCError: The launcher's environment is missing, there are more
            processes than GPUs, only some processes see one, or ``sync_bn``
            is not available.
    """
    if launcher == 'none':
        return
    _check_sync_bn(cfg.get('sync_bn'))
    set_timeout(cfg)
    try:
        os.environ.update(_environment(launcher))
    except KeyError as error:
        raise FGCError(
            f'--launcher {launcher} finds no {error.args[0]} in the '
            f'environment, where the launcher sets it; {_HINTS[launcher]}.'
        ) from None
    if torch.cuda.is_available():
        if launcher == 'slurm' and _has_own_gpu():
            # the only visible GPU has number 0; mmengine reads these variables
            os.environ.update(LOCAL_RANK='0', SLURM_LOCALID='0')
        _check_gpu(int(os.environ['LOCAL_RANK']))
        # NCCL's watchdog ends the process; it shall report the ranks that did
        # not join
        os.environ.setdefault('TORCH_NCCL_DESYNC_DEBUG', '1')
    check_devices(collective_timeout(cfg))
    if not torch.cuda.is_available():
        _join_gloo(cfg)


def _check_sync_bn(kind: str | None) -> None:
    if kind not in (None, 'torch'):
        raise FGCError(
            f"sync_bn={kind!r} is not 'torch': that of mmcv needs operators "
            "that mmcv-lite does not have; set sync_bn='torch'."
        )
    if kind is not None and not torch.cuda.is_available():
        raise FGCError(
            f"sync_bn={kind!r} finds no GPU, but torch's SyncBatchNorm does "
            'not support the CPU; leave sync_bn out, so that each process '
            'uses the statistics of its own batch.'
        )


def _environment(launcher: str) -> dict[str, str]:
    """The launcher's variables under the names that torch reads."""
    env = os.environ
    if launcher == 'slurm':
        return _slurm_environment()
    if launcher == 'mpi':
        return {
            'RANK': env['OMPI_COMM_WORLD_RANK'],
            'WORLD_SIZE': env['OMPI_COMM_WORLD_SIZE'],
            'LOCAL_RANK': env['OMPI_COMM_WORLD_LOCAL_RANK'],
            'MASTER_ADDR': env['MASTER_ADDR'],
            'MASTER_PORT': env.get('MASTER_PORT', '29500'),
        }
    names = 'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'
    return {name: env[name] for name in names}


def _slurm_environment() -> dict[str, str]:
    env = os.environ
    # by job, since two jobs may share a node; below 32768, where the ports of
    # outgoing connections begin
    job = int(env.get('SLURM_JOB_ID', 0)) * 8
    port = 10000 + (job + int(env.get('SLURM_STEP_ID', 0))) % 20000
    return {
        'RANK': env['SLURM_PROCID'],
        'WORLD_SIZE': env['SLURM_NTASKS'],
        'LOCAL_RANK': env['SLURM_LOCALID'],
        'MASTER_ADDR': env.get('MASTER_ADDR') or _first_slurm_node(),
        'MASTER_PORT': env.get('MASTER_PORT', str(port)),
    }


def _first_slurm_node() -> str:
    """The address of the node of rank 0."""
    nodes = os.environ.get('SLURM_STEP_NODELIST', os.environ['SLURM_NODELIST'])
    name = _scontrol('hostnames', nodes).split()[0]
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        # Slurm's node names may be unknown to DNS; Slurm knows the address
        match = re.search(r'NodeAddr=(\S+)', _scontrol('node', name))
        return match[1] if match else name
    return name


def _scontrol(kind: str, name: str) -> str:
    try:
        return subprocess.run(
            ['scontrol', 'show', kind, name],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise FGCError(
            f'scontrol does not show {kind} {name} ({error}), but all '
            'processes connect to the first node; set MASTER_ADDR to its '
            'address.'
        ) from error


def _has_own_gpu() -> bool:
    """Whether Slurm assigns each process a GPU of its own."""
    env = os.environ
    bound = (
        env.get('SLURM_GPUS_PER_TASK')
        or 'gpu' in env.get('SLURM_TRES_PER_TASK', '')
        or env.get('SLURM_GPU_BIND', 'none') not in ('', 'none')
    )
    return bool(bound) and torch.cuda.device_count() == 1


def _check_gpu(local_rank: int) -> None:
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise FGCError(
            f'process {local_rank} of this machine has no GPU ({count} '
            f'visible): each process needs its own GPU; start {count}, let '
            'Slurm assign one to each (--gpus-per-task=1), or run all on the '
            'CPU with CUDA_VISIBLE_DEVICES=-1.'
        )


def _join_gloo(cfg: Config) -> None:
    dist.init_process_group(
        'gloo', timeout=timedelta(seconds=collective_timeout(cfg))
    )
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    wrapper.update(cfg.get('model_wrapper_cfg') or {})
    wrapper.update(device_ids=None)
    cfg.model_wrapper_cfg = wrapper


def leave_processes(status: int) -> None:
    """Destroys the process group and exits; returns if there is none.

    A thread of a process group sometimes aborts the process while Python
    exits ("terminate called without an active exception"), so that a
    successful run would be reported as failed. So the process exits here,
    after the exit functions that Python would have called.
    """
    if not dist.is_initialized():
        return
    dist.destroy_process_group()
    atexit._run_exitfuncs()  # flush the log, end the data loaders' workers
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
