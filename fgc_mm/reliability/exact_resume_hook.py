"""A resumed run that equals one that was never interrupted."""

from __future__ import annotations

from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner, set_random_seed
from torch.utils.data import DataLoader

from fgc_mm.errors import FGCError
from fgc_mm.registry import HOOKS
from fgc_mm.reliability.random_states import (
    States,
    mixed_seed,
    random_states,
    restore_random_states,
)
from fgc_mm.reliability.seeded_batches import SeededBatches

STATE = 'fgc_random_states'


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Carries in the checkpoint what else a resumed run would draw anew.

    - The random states of every rank. What lies between two training steps
      (validation, the start of data loaders, a resume) does not move them:
      they are held where the one ends and put back where the next begins.
    - The shuffling seed, and how many batches of the epoch were done, which
      are then left out.
    - Every batch is augmented with a seed of its own (`SeededBatches`), so
      that nothing is lost with the processes that load the data.

    With another number of processes no equality is possible; the run says
    so, reseeds, and goes on at the same share of the epoch.

    Args:
        require_states: Refuse to resume from a checkpoint without random
            states; with ``False`` a warning says that fresh ones are drawn.
    """

    priority = 'HIGHEST'

    def __init__(self, require_states: bool = True) -> None:
        self.require_states = require_states
        self._held: list[States] | None = None  # of every rank
        self._loaded: dict[str, Any] | None = None
        self._batches: SeededBatches | None = None
        self._done = 0  # batches of this epoch

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the checkpoint's share until training begins.

        Raises:
            FGCError: It has none, and ``require_states``.
        """
        if not runner._resume:
            return
        self._loaded = checkpoint.get(STATE)
        if self._loaded is not None:
            return
        if self.require_states:
            raise FGCError(
                'The checkpoint has no random states (saved without '
                'ExactResumeHook), so the run cannot equal an uninterrupted '
                'one; give a file that was saved with the hook, or set '
                'default_hooks.exact_resume.require_states=False to draw '
                'fresh ones.'
            )
        runner.logger.warning(
            'The checkpoint has no random states (saved without '
            'ExactResumeHook): the run goes on with fresh ones.'
        )

    def before_train(self, runner: Runner) -> None:
        """Seed the batches, and stand where the checkpoint was written."""
        loader = runner.train_dataloader
        self._batches = _seed_batches(loader, runner.seed)
        loaded, self._loaded = self._loaded, None
        self._held, self._done = None, 0
        if loaded is not None:
            self._restore(runner, loader, loaded)
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            _restart_iterator(runner, loader, self._batches)

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell the batches the epoch, and which of it are done."""
        if self._batches is not None and not _is_iter_based(runner):
            self._batches.epoch = runner.epoch
            self._batches.skip = self._done

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Put the random states back where they were held."""
        if self._held is not None:
            restore_random_states(self._held[get_rank()])
            self._held = None

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
        """Hold the random states until the next epoch."""
        self._done = 0
        self.hold_random_states(runner)

    def before_val(self, runner: Runner) -> None:
        """Hold the random states until training goes on."""
        if self._batches is not None:  # not in a mere test
            self.hold_random_states(runner)

    def hold_random_states(self, runner: Runner) -> None:
        """Gather the states; every rank calls this before a checkpoint."""
        if self._held is None:
            self._held = all_gather_object(random_states())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the states beside the weights (on rank 0 alone)."""
        if self._batches is None:
            return
        checkpoint[STATE] = dict(
            ranks=self._held or [random_states()],
            sampler_seed=getattr(_sampler(self._batches), 'seed', None),
            done=0 if _is_iter_based(runner) else self._done,
            length=len(self._batches),
        )

    def _restore(
        self, runner: Runner, loader: DataLoader, loaded: dict[str, Any]
    ) -> None:
        sampler, length = _sampler(self._batches or loader), len(loader)
        if loaded['sampler_seed'] is not None and hasattr(sampler, 'seed'):
            sampler.seed = loaded['sampler_seed']
        self._done = loaded['done'] * length // loaded['length']
        if len(loaded['ranks']) == get_world_size():
            self._held = loaded['ranks']
            return
        runner.logger.warning(
            f'The checkpoint has the random states of {len(loaded["ranks"])} '
            f'processes and this run has {get_world_size()}: it reseeds them '
            'and cannot equal the uninterrupted run.'
        )
        set_random_seed(mixed_seed(runner.seed, runner.iter, get_rank()))
        self._held = all_gather_object(random_states())


def _is_iter_based(runner: Runner) -> bool:
    return isinstance(runner.train_loop, IterBasedTrainLoop)


def _sampler(batches: Any) -> Any:
    return getattr(batches, 'sampler', None)


def _seed_batches(loader: DataLoader, seed: int) -> SeededBatches | None:
    unseeded: Any = loader.batch_sampler
    if unseeded is None:  # batch_size=None: no batches to seed
        return None
    batches = SeededBatches(unseeded, seed, get_rank())
    # DataLoader guards the attribute, but reads it anew for every iterator
    object.__setattr__(loader, 'batch_sampler', batches)
    return batches


def _restart_iterator(
    runner: Runner, loader: DataLoader, batches: SeededBatches | None
) -> None:
    """An iteration-based loop has begun to read before any hook is asked."""
    loop = runner.train_loop
    if batches is not None and hasattr(loader.sampler, 'skip'):
        batches.first = loop.iter  # the forks let the sampler skip
    loader._iterator = None
    loop.dataloader_iterator = type(loop.dataloader_iterator)(loader)
