"""Trains a model: fgc-mm train CONFIG [options]."""

import argparse
import os

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from fgc_mm.cli.command_runner import CommandRunner
from fgc_mm.cli.freed_memory import keep_freed_memory
from fgc_mm.cli.given_config import apply_options, choose_work_dir
from fgc_mm.cli.launch import join_processes
from fgc_mm.comparison.environment import write_environment
from fgc_mm.engine.bfloat16_wrapper import use_mixed_precision
from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.dataloader_defaults import (
    set_dataloader_defaults,
    switch_off,
    unpin_device_images,
)
from fgc_mm.engine.optimizer_defaults import write_optimizer_defaults
from fgc_mm.engine.scaled_schedule import scale_epochs
from fgc_mm.errors import FGCError
from fgc_mm.reliability.checkpoint_reader import read_checkpoint
from fgc_mm.reliability.latest_checkpoint import latest_checkpoint
from fgc_mm.reliability.resumable import check_resumable
from fgc_mm.reliability.training_steps_hook import (
    TrainingStepsHook,
    check_steps,
)
from fgc_mm.runtime.cpu import usable_cores

LOADERS = 'train_dataloader', 'val_dataloader', 'test_dataloader'


def main(args: argparse.Namespace) -> None:
    """Reads the arguments and the config, and trains."""
    cfg = load_config(args.config)
    if args.epochs is not None:
        cfg = scale_epochs(cfg, args.epochs)
    apply_arguments(cfg, args)
    own = 'runner_type' in cfg
    if not own:
        check_parts(cfg)
    use_mixed_precision(cfg, args.amp)
    write_optimizer_defaults(cfg)
    check_seed(cfg)
    check_start(cfg)
    join_processes(cfg, args.launcher)
    if not torch.cuda.is_available():
        keep_freed_memory()
    build = RUNNERS.build if own else CommandRunner.from_cfg
    runner = build(cfg)
    if is_main_process():
        write_environment(runner.log_dir)
        warn_of_load(runner)
    train(runner)


def train(runner: Runner) -> None:
    """Trains; a run without a training step is an error."""
    hooks = getattr(runner, 'hooks', ())
    if hooks and not any(isinstance(h, TrainingStepsHook) for h in hooks):
        runner.register_hook(TrainingStepsHook())
    try:
        runner.train()
    except (ArithmeticError, AssertionError, ValueError):
        # schedulers divide by the length of an epoch before any hook is called
        check_steps(runner)
        raise
    except KeyboardInterrupt:
        runner.logger.warning(
            'Ctrl-C stops without saving: --resume continues from the newest '
            f'checkpoint in {runner.work_dir}. SIGTERM saves before it stops.'
        )
        raise


def warn_of_load(runner: Runner) -> None:
    """Warn of a CPU whose cores are busy, where threads wait for threads."""
    threads, cores = torch.get_num_threads(), usable_cores()
    if torch.cuda.is_available() or threads == 1:
        return
    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else 0.0
    if load > cores:
        runner.logger.warning(
            f'The load of this machine is {load:.1f}, on {cores} cores, and '
            f'this run uses {threads} threads, which will wait for each '
            'other: if it is slow, set OMP_NUM_THREADS=1.'
        )


def apply_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Writes the arguments into the config, and --cfg-options over them."""
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.launcher = args.launcher
    choose_work_dir(cfg, args)
    if args.auto_scale_lr:
        scale_learning_rate(cfg, args.config)
    apply_loader_arguments(cfg, args)
    choose_start(cfg, args.resume)
    set_teacher_checkpoint(cfg)


def choose_start(cfg: Config, resume: str | None) -> None:
    """Sets the checkpoint from which the run resumes or starts.

    ``--resume`` comes before ``load_from``, also if --cfg-options set that: a
    repeated command continues the run and does not start it again.

    Args:
        cfg: The config, with --cfg-options.
        resume: Of --resume: a path, ``'auto'`` for the newest checkpoint of
            the work dir, or ``None``.
    """
    start = cfg.get('load_from')
    if resume is not None and resume != 'auto':
        cfg.resume, cfg.load_from = True, resume
    elif resume == 'auto' or (cfg.get('resume') and start is None):
        cfg.resume = has_checkpoint(cfg)
        cfg.load_from = None if cfg.resume else start


def has_checkpoint(cfg: Config) -> bool:
    """Whether the work dir has a checkpoint of an earlier training."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    scheduled = cfg.get('param_scheduler') is not None
    found, _ = latest_checkpoint(cfg.work_dir, hook.get('out_dir'), scheduled)
    return found is not None


def set_teacher_checkpoint(cfg: Config) -> None:
    """Sets ``load_from`` as the teacher's checkpoint, if it has none.

    Not for a resumed run, whose checkpoint is that of the student.
    """
    distillation = (cfg.get('model') or {}).get('distillation')
    if distillation is None or cfg.get('resume'):
        return
    if distillation.get('checkpoint') is None:
        distillation.checkpoint = cfg.get('load_from')


def scale_learning_rate(cfg: Config, path: str) -> None:
    """Enables mmengine's scaling, if the config has a base batch size."""
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise FGCError(
            f'--auto-scale-lr finds no auto_scale_lr in {path}: scaling needs '
            'the batch size for which the learning rate was chosen; add '
            'auto_scale_lr = dict(base_batch_size=...).'
        )
    cfg.auto_scale_lr.enable = True


def apply_loader_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Applies defaults and arguments of data loaders, then --cfg-options."""
    set_dataloader_defaults(cfg, LOADERS, persistent_workers=True)
    if args.no_pin_memory:
        switch_off(cfg, LOADERS, 'pin_memory')
    if args.no_persistent_workers:
        switch_off(cfg, LOADERS, 'persistent_workers')
    apply_options(cfg, args)
    unpin_device_images(cfg, LOADERS)
    # torch does not allow persistent_workers without workers
    without = [f for f in LOADERS if not (cfg.get(f) or {}).get('num_workers')]
    switch_off(cfg, without, 'persistent_workers')


def check_parts(cfg: Config) -> None:
    """Checks that the config has more than a model."""
    parts = 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper'
    missing = [name for name in parts if cfg.get(name) is None]
    if missing:
        raise FGCError(
            f'{cfg.filename} has no {", ".join(missing)}, which a training '
            'needs; inherit them with _base_, as the configs of this package '
            'do.'
        )


def check_seed(cfg: Config) -> None:
    """Checks that the seed is one of numpy's."""
    seed = (cfg.get('randomness') or {}).get('seed')
    whole = isinstance(seed, int) and 0 <= seed < 2**32
    if seed is not None and not whole:
        raise FGCError(
            f'randomness.seed={seed!r} is not a seed; give a whole number '
            'from 0 to 4294967295, or None for a random one.'
        )


def check_start(cfg: Config) -> None:
    """Reads the checkpoint of --resume or load_from before writing files."""
    path, resume = cfg.get('load_from'), cfg.get('resume')
    scheduled = cfg.get('param_scheduler') is not None
    if path and '://' in path:
        return
    if path is not None and resume:
        check_resumable(path, scheduled)
    elif path is not None:
        read_checkpoint(path)
