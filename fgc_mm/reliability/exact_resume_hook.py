"""Makes a resumed run equal to one that was not interrupted."""

from __future__ import annotations

from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from fgc_mm.errors import FGCError
from fgc_mm.registry import HOOKS
from fgc_mm.reliability.random_states import (
    States,
    random_states,
    restore_random_states,
    same_random_states,
    seed_rank,
)
from fgc_mm.reliability.seeded_batches import SeededBatches

STATE = 'fgc_random_states'


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Saves and restores the random states and the position in the epoch.

    - The random states of every rank are saved after a training step and
      restored before the next one, so validation, the start of data loaders
      or a resume in between do not change them.
    - The checkpoint contains the shuffling seed and the number of finished
      batches of the epoch; a resumed run skips these batches.
    - The checkpoint contains the best score of an EarlyStoppingHook and how
      long it has waited for a better one.
    - Every batch is augmented with a separate seed (`SeededBatches`), so no
      random state is lost with the data loader's processes.
    - With several ranks each draws random numbers of its own, also without
      ``diff_rank_seed``: with mmengine's default image i of every rank has
      the same gate noise and dropout, which the mean over ranks then keeps.

    With another number of processes the run cannot equal the original one; it
    logs a warning, reseeds, and continues at the same fraction of the epoch.

    Args:
        require_states: Whether a checkpoint without random states is an
            error; with ``False`` the run is seeded anew, with a warning.
    """

    priority = 'HIGHEST'

    def __init__(self, require_states: bool = True) -> None:
        self.require_states = require_states
        self._states: list[States] | None = None  # of every rank
        self._loaded: dict[str, Any] | None = None
        self._batches: SeededBatches | None = None
        self._done = 0  # finished batches of this epoch

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the states of the checkpoint until training begins.

        Raises:
            FGCError: It has damaged ones, or none and ``require_states`` is
                true.
        """
        if not runner._resume:
            return
        self._loaded = checkpoint.get(STATE)
        if self._loaded is not None:
            _check_states(self._loaded)
            return
        if self.require_states:
            raise FGCError(
                'The checkpoint has no random states (saved without '
                'ExactResumeHook), so the run cannot equal an uninterrupted '
                'one; give a file that was saved with the hook, or set '
                'default_hooks.exact_resume.require_states=False to seed the '
                'run anew.'
            )
        runner.logger.warning(
            'The checkpoint has no random states (saved without '
            'ExactResumeHook): the run is seeded anew.'
        )

    def before_train(self, runner: Runner) -> None:
        """Seed the batches, and restore the states of the checkpoint."""
        loader = runner.train_dataloader
        self._batches = _seed_batches(loader, runner.seed)
        loaded, self._loaded = self._loaded, None
        self._states, self._done = None, 0
        if loaded is not None:
            self._restore(runner, loader, loaded)
        elif get_world_size() > 1:
            self._seed_ranks(runner)
        if _is_iter_based(runner):
            _restart_iterator(runner, loader, self._batches)

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the epoch of the batches, and how many of them to skip."""
        if self._batches is not None and not _is_iter_based(runner):
            self._batches.epoch = runner.epoch
            self._batches.skip = self._done

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Restore the random states that were saved after the last step."""
        if self._states is not None:
            restore_random_states(self._states[get_rank()])
            self._states = None

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Count the batches of the epoch."""
        self._done += 1

    def after_train_epoch(self, runner: Runner) -> None:
        """Save the random states until the next epoch."""
        self._done = 0
        self.gather_random_states(runner)

    def before_val(self, runner: Runner) -> None:
        """Save the random states until the next training step."""
        if self._batches is not None:  # training, not a test
            self.gather_random_states(runner)

    def gather_random_states(self, runner: Runner) -> None:
        """Gather the states of all ranks; every rank calls this."""
        if self._states is None:
            self._states = all_gather_object(random_states())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the states to the checkpoint (on rank 0 only)."""
        if self._batches is None:
            return
        # iterations have no epoch, and a stream of images no length
        endless = _is_iter_based(runner)
        checkpoint[STATE] = dict(
            ranks=self._states or [random_states()],
            sampler_seed=getattr(_sampler(self._batches), 'seed', None),
            done=0 if endless else self._done,
            length=1 if endless else len(self._batches),
            waits={
                hook.monitor: (hook.wait_count, hook.best_score)
                for hook in _early_stopping(runner)
            },
        )

    def _restore(
        self, runner: Runner, loader: DataLoader, loaded: dict[str, Any]
    ) -> None:
        # not `or`, which would ask the batches of a stream for their number
        sampler = _sampler(loader if self._batches is None else self._batches)
        if loaded['sampler_seed'] is not None and hasattr(sampler, 'seed'):
            sampler.seed = loaded['sampler_seed']
        waits = loaded.get('waits', {})  # older checkpoints have none
        for hook in _early_stopping(runner):
            if hook.monitor not in waits:
                continue
            hook.wait_count, hook.best_score = waits[hook.monitor]
            if _has_stopped(hook):
                runner.train_loop.stop_training = True
                runner.logger.info(
                    f'EarlyStoppingHook ({hook.monitor}) had ended the run '
                    'of this checkpoint, so it is complete; for more '
                    'training set a larger patience.'
                )
        if not _is_iter_based(runner):
            self._done = loaded['done'] * len(loader) // loaded['length']
        if len(loaded['ranks']) == get_world_size():
            self._states = loaded['ranks']
            return
        runner.logger.warning(
            f'The checkpoint has the random states of {len(loaded["ranks"])} '
            f'processes and this run has {get_world_size()}: it is seeded '
            'anew and cannot equal the uninterrupted run.'
        )
        self._seed_ranks(runner)

    def _seed_ranks(self, runner: Runner) -> None:
        """Set states of each rank for the first step.

        Until then the ranks' states stay equal, as are the initial rows of
        memory banks that are drawn from them.
        """
        with same_random_states():
            seed_rank(runner.seed, runner.iter)
            self._states = all_gather_object(random_states())


def _check_states(loaded: Any) -> None:
    """Raise FGCError unless this is what the hook saves."""
    parts = loaded if isinstance(loaded, dict) else {}
    ranks = parts.get('ranks')
    counts = [parts.get(key) for key in ('done', 'length')]
    if (
        'sampler_seed' in parts
        and isinstance(ranks, list)
        and ranks
        and all(isinstance(states, dict) for states in ranks)
        and all(isinstance(count, int) for count in counts)
        and isinstance(parts.get('waits', {}), dict)
    ):
        return
    raise FGCError(
        f'the checkpoint has {str(loaded)[:40]!r} where the random states '
        'belong, so it was changed or damaged; resume from another file, or '
        'take the weights alone with load_from instead of --resume.'
    )


def _is_iter_based(runner: Runner) -> bool:
    return isinstance(runner.train_loop, IterBasedTrainLoop)


def _early_stopping(runner: Runner) -> list[EarlyStoppingHook]:
    return [x for x in runner.hooks if isinstance(x, EarlyStoppingHook)]


def _has_stopped(hook: EarlyStoppingHook) -> bool:
    reached = hook.stopping_threshold is not None and hook.rule_map[hook.rule](
        hook.best_score, hook.stopping_threshold
    )
    return reached or hook.wait_count >= max(hook.patience, 1)


def _sampler(batches: Any) -> Any:
    return getattr(batches, 'sampler', None)


def _seed_batches(loader: DataLoader, seed: int) -> SeededBatches | None:
    unseeded: Any = loader.batch_sampler
    if unseeded is None:  # batch_size=None: no batches to seed
        return None
    batches = SeededBatches(unseeded, seed, get_rank())
    # DataLoader forbids setting the attribute, but reads it for every iterator
    object.__setattr__(loader, 'batch_sampler', batches)
    return batches


def _restart_iterator(
    runner: Runner, loader: DataLoader, batches: SeededBatches | None
) -> None:
    """Restart the iterator, which the loop has made before any hook ran."""
    loop = runner.train_loop
    if batches is not None and hasattr(loader.sampler, 'skip'):
        batches.first = loop.iter  # in the onedl forks the sampler skips
    loader._iterator = None
    loop.dataloader_iterator = type(loop.dataloader_iterator)(loader)
