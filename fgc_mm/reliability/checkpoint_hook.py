"""Checkpoint hook that survives a crash, a full disk and a preemption."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from fgc_mm.errors import FGCError
from fgc_mm.exit_status import STOP_FILE, STOPPED
from fgc_mm.registry import HOOKS
from fgc_mm.reliability.atomic_file import (
    BACKEND,
    remove_leftovers,
    write_atomically,
)
from fgc_mm.reliability.latest_checkpoint import (
    POINTER,
    latest_checkpoint,
    own_folders,
)
from fgc_mm.reliability.resumable import (
    changed_schedules,
    check_averages,
    check_schedulers,
    check_training_state,
)
from fgc_mm.reliability.stop_signal import StopSignal, keep_workers_alive
from fgc_mm.reliability.timeout import collective_timeout
from fgc_mm.reliability.work_dir_lock import WorkDirLock

INTERRUPTED = 'interrupted.pth'


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, for runs that may be killed at any time.

    - A checkpoint is written under a temporary name and renamed before older
      ones are removed.
    - Resuming uses the newest checkpoint that is complete and contains the
      state of optimizer and schedulers.
    - On SIGTERM or SIGUSR1 all ranks finish the same step, save
      ``interrupted.pth`` and exit with status 75.
    - A second run that writes to the same folder is an error.

    Args:
        keep_epochs: Epochs (1 is the first) whose checkpoints are saved
            regardless of ``interval``, and not removed by
            ``max_keep_ckpts``, such as the end of a stage from which other
            runs start.
        **kwargs: As in ``CheckpointHook``, which ignores unknown ones.

    Raises:
        FGCError: ``keep_epochs`` is not a list of epochs, or
            ``by_epoch=False``.
    """

    backend_args: dict | None
    keep_ckpt_ids: deque

    def __init__(self, keep_epochs: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keep_epochs = _checked_epochs(keep_epochs, self.by_epoch)
        self._stop = StopSignal()
        self._lock = WorkDirLock()

    def before_run(self, runner: Runner) -> None:
        """Lock the run's folders, and choose the checkpoint to resume from."""
        if not isinstance(runner._train_loop, BaseLoop):  # no training
            return
        if is_main_process():
            for folder in own_folders(runner.work_dir, self.out_dir):
                self._lock.acquire(folder)
                for part in remove_leftovers(folder):
                    runner.logger.info(f'Removed the incomplete file {part}.')
        if runner._resume and runner._load_from is None:
            self._resume_from_the_latest(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to resume from a checkpoint without training state.

        Raises:
            FGCError: Optimizer, schedulers or counters are missing, or the
                trained weights are where only ``EMAHook`` finds them.
        """
        if runner._resume:
            schedulers = runner.param_schedulers
            name = str(runner._load_from)
            check_training_state(checkpoint, name, schedulers is not None)
            check_schedulers(checkpoint, schedulers)
            check_averages(checkpoint, name, bool(_average_hooks(runner)))
            changes = changed_schedules(checkpoint, schedulers)
            if changes:
                runner.logger.warning(
                    f'{", ".join(changes)}: the resumed run continues the '
                    'schedule of the checkpoint; for that of the config load '
                    'only the weights with load_from instead of --resume.'
                )

    def before_train(self, runner: Runner) -> None:
        """Install the signal handlers."""
        folder = str(self.out_dir or runner.work_dir)
        if self.backend_args is None and '://' not in folder:
            self.backend_args = dict(backend=BACKEND)
        self._exclude_kept_epochs(runner)
        super().before_train(runner)
        if self.max_keep_ckpts > 0:  # no maxlen: one more during a save
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)
        keep_workers_alive(runner.train_dataloader)
        if runner.val_loop is not None:
            keep_workers_alive(runner.val_dataloader)
        self._stop.install(collective_timeout(runner.cfg))
        _warn_of_accumulation(runner, self)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Save as upstream does; stop after a signal."""
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        if self._stop.any_rank() and _gradients_are_used(runner):
            meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
            self._save_and_exit(runner, meta)

    def after_train_epoch(self, runner: Runner) -> None:
        """Save as upstream does, and in the epochs of ``keep_epochs``."""
        super().after_train_epoch(runner)
        step = runner.epoch + 1
        name = self.filename_tmpl.format(step)
        done = Path(str(self.last_ckpt or '')).name == name
        if step in self.keep_epochs and not done:
            self._save_checkpoint(runner)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Stop after a signal; several ranks stop when training goes on."""
        # ranks may have unequal numbers of validation steps
        if self._stop.name and get_world_size() == 1:
            averages = _average_hooks(runner)
            if any(map(_validates_twice, averages)):
                return  # which weights the model has is unknown here
            for hook in averages:
                # validation has the averaged weights in the model
                hook.after_val_epoch(runner)
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_and_exit(runner, meta)

    def after_train(self, runner: Runner) -> None:
        """Save and publish; remove the handlers, unlock the folders."""
        stopped = getattr(runner.train_loop, 'stop_training', False)
        if self.save_last and stopped:
            self._save_where_it_stopped(runner)
        super().after_train(runner)
        self._stop.remove()
        self._lock.release()

    def _save_where_it_stopped(self, runner: Runner) -> None:
        """Save after early stopping, which upstream's save_last misses."""
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            return  # has one epoch, which is saved
        step = runner.epoch if self.by_epoch else runner.iter
        # again if it exists: that was saved before the last validation
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        self._save_checkpoint_with_step(runner, step, meta)

    def _exclude_kept_epochs(self, runner: Runner) -> None:
        """Keep upstream from removing kept epochs when a run is resumed."""
        info = runner.message_hub.runtime_info
        if 'keep_ckpt_ids' in info:
            saved, kept = info['keep_ckpt_ids'], self.keep_epochs
            others = [number for number in saved if number not in kept]
            runner.message_hub.update_info('keep_ckpt_ids', others)

    def _resume_from_the_latest(self, runner: Runner) -> None:
        path, errors = latest_checkpoint(
            runner.work_dir, self.out_dir, runner.param_schedulers is not None
        )
        for error in errors:
            runner.logger.warning(f'{error} Resuming from {path} instead.')
        if path is None:
            return
        own = own_folders(runner.work_dir, self.out_dir)
        if path.absolute().parent not in [x.absolute() for x in own]:
            runner.logger.warning(
                f'{runner.work_dir} contains no checkpoint; its {POINTER} '
                f'file names {path}, so the run resumes from that.'
            )
        runner._load_from = str(path)

    def _save_and_exit(self, runner: Runner, meta: dict[str, int]) -> None:
        name = self._stop.name or 'a signal to another process'
        runner.logger.info(
            f'Stopped by {name}: saving {INTERRUPTED} (epoch '
            f'{meta["epoch"]}, iter {meta["iter"]}) and exiting with '
            f'status {STOPPED}; continue with --resume.'
        )
        self._save(runner, INTERRUPTED, meta)
        self._stop.wait_for_ranks()
        self._lock.release()
        if STOP_FILE in os.environ:
            with suppress(OSError):  # the launcher may have ended
                Path(os.environ[STOP_FILE]).touch()
        raise SystemExit(STOPPED)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict
    ) -> None:
        """As upstream's, but saves the new file before removing old ones."""
        kept = list(getattr(self, 'keep_ckpt_ids', ()))
        if self.max_keep_ckpts > 0 and step not in self.keep_epochs:
            kept = kept if kept[-1:] == [step] else [*kept, step]
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        self._save(runner, self.filename_tmpl.format(step), meta)
        outdated = [INTERRUPTED]
        if self.max_keep_ckpts > 0:
            old = kept[: -self.max_keep_ckpts]
            outdated += [self.filename_tmpl.format(number) for number in old]
            self.keep_ckpt_ids = deque(kept[-self.max_keep_ckpts :])
        if is_main_process():
            self._remove(outdated)

    def _save(self, runner: Runner, name: str, meta: dict) -> None:
        # only rank 0 writes the checkpoint, but here all ranks are called
        runner.call_hook('gather_random_states')
        runner.call_hook('average_norms')
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                pointer = Path(runner.work_dir, POINTER)
                write_atomically(self.last_ckpt.encode(), pointer)
        except OSError as error:
            raise _save_error(self.last_ckpt, error) from error

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """As upstream's, but saves the new file before removing old ones.

        Only files in this run's folder are removed: a run that was resumed
        from a copy, or in another work dir, still has the path of the
        original run's best checkpoint.
        """
        if not self.save_best:
            return
        old = self._best_files()
        self._set_best_files(dict.fromkeys(old))
        try:
            super()._save_best_checkpoint(runner, metrics)
        except OSError as error:
            raise _save_error('the best checkpoint', error) from error
        new = self._best_files()
        self._set_best_files({key: new[key] or old[key] for key in new})
        if is_main_process():
            kept = {Path(path).name for path in new.values() if path}
            names = {Path(old[key] or '').name for key in new if new[key]}
            self._remove([name for name in names - kept if name])

    def _best_files(self) -> dict[str, str | None]:
        """The paths of the best checkpoints, by metric if there are some."""
        if len(self.key_indicators) == 1:
            return {'': self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    def _set_best_files(self, paths: dict[str, str | None]) -> None:
        if len(self.key_indicators) == 1:
            (self.best_ckpt_path,) = paths.values()
        else:
            self.best_ckpt_path_dict = paths

    def _remove(self, names: list[str]) -> None:
        for name in names:
            path = self.file_backend.join_path(self.out_dir, name)
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # of deepspeed
                self.file_backend.rmtree(path)


def _average_hooks(runner: Runner) -> list[EMAHook]:
    return [hook for hook in runner.hooks if isinstance(hook, EMAHook)]


def _validates_twice(hook: EMAHook) -> bool:
    """Whether mmpretrain's hook validates averaged and trained weights."""
    names = 'evaluate_on_ema', 'evaluate_on_origin'
    return all(getattr(hook, name, False) for name in names)


def _checked_epochs(epochs: Sequence[int], by_epoch: bool) -> frozenset[int]:
    is_list = isinstance(epochs, (list, tuple))
    if not is_list or any(type(e) is not int or e < 1 for e in epochs):
        raise FGCError(
            f'keep_epochs={epochs!r} of the checkpoint hook must be a list '
            'of whole numbers of at least 1, such as [100].'
        )
    if epochs and not by_epoch:
        raise FGCError(
            f'keep_epochs={list(epochs)} counts epochs, but the checkpoint '
            'hook has by_epoch=False and counts iterations; remove one of '
            'them.'
        )
    return frozenset(epochs)


def _warn_of_accumulation(runner: Runner, hook: CheckpointHook) -> None:
    """Warn if checkpoints are saved between two updates of the weights."""
    counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    if not hook.by_epoch:
        if hook.interval <= 0:
            return
        first = hook.save_begin or hook.interval
        # the last step updates the weights
        steps = [*range(first, runner.max_iters, hook.interval)]
        where = f'the interval of {hook.interval} steps from {hook.save_begin}'
    elif isinstance(runner.train_loop, IterBasedTrainLoop):
        return
    else:
        steps = [len(runner.train_dataloader)]
        where = f'the {steps[0]} steps of an epoch'
    if any(number % counts for number in steps):
        runner.logger.warning(
            f'accumulative_counts={counts} does not divide {where}: a '
            'checkpoint lacks the accumulated gradients, so resuming from it '
            'is not exact.'
        )


def _gradients_are_used(runner: Runner) -> bool:
    """Whether no accumulated gradient would be missing in a checkpoint."""
    counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    return (runner.iter + 1) % counts == 0


def _save_error(path: str, error: OSError) -> FGCError:
    return FGCError(
        f'{path} cannot be saved ({error.strerror or error}); the earlier '
        'checkpoints are complete: free disk space, then continue with '
        '--resume.'
    )
