"""Hook that builds, updates, saves and restores the memory banks."""

from itertools import chain
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor

from fgc_mm.engine.bank_checks import (
    check_same_banks,
    check_same_length,
    check_unmixed,
    check_unwrapped,
)
from fgc_mm.engine.loss_progress_hook import (
    is_schedule_preview,
    unwrapped_model,
)
from fgc_mm.engine.sharded_bank_saver import (
    ShardedBankSaver,
    banks_state,
)
from fgc_mm.errors import FGCError, check_choice
from fgc_mm.losses import FeatureGateCouplingLoss
from fgc_mm.losses.label_neighbors import LabelNeighbors
from fgc_mm.models.gate_losses_mixin import GateLossesMixin
from fgc_mm.registry import HOOKS

STATE = 'fgc_memory_banks'
DTYPES = ('float32', 'bfloat16', 'float16')


@HOOKS.register_module()
class FGCMemoryBankHook(Hook):
    """Builds, updates, saves and restores the banks of every coupling loss.

    Before training it builds banks with one row per training image, after
    each step it writes the batch (gathered from all ranks, so that every rank
    holds the same rows), and it stores the banks in checkpoints.

    Args:
        save_banks: Whether to save the banks in checkpoints. Without them a
            resumed run initialises the banks at random and logs a warning.
        load_banks: Whether to load the banks of a checkpoint that has them.
        agreement_interval: Number of iterations after which the agreement of
            the neighbourhoods of features and gates (fraction of common
            neighbours) is logged for each coupled site.
        shard: Whether each rank holds only a part of the rows, so that the
            memory per rank falls with the number of ranks. Losses, gradients
            and checkpoints are the same up to rounding; a run can be resumed
            with another number of ranks, sharded or not.
        dtype: ``'float32'``, ``'bfloat16'`` or ``'float16'``, for the rows.
        check_interval: Number of iterations after which the copies of the
            banks on all ranks are compared by a checksum; 0: never.

    Raises:
        FGCError: An unknown dtype, or an interval that is not a number.
            During training: mixed images, banks that differ between ranks,
            or an error of the coupling loss.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        save_banks: bool = True,
        load_banks: bool = True,
        agreement_interval: int = 50,
        shard: bool = False,
        dtype: str = 'float32',
        check_interval: int = 500,
    ) -> None:
        check_choice(f'dtype={dtype!r} of FGCMemoryBankHook', dtype, DTYPES)
        for name, interval in (
            ('agreement_interval', agreement_interval),
            ('check_interval', check_interval),
        ):
            if not isinstance(interval, int):
                raise FGCError(
                    f'{name}={interval!r} of FGCMemoryBankHook is not a '
                    'whole number of iterations; give one, or 0 for never.'
                )
        self.save_banks = save_banks
        self.load_banks = load_banks
        self.agreement_interval = agreement_interval
        self.shard = shard
        self.dtype = getattr(torch, dtype)
        self.check_interval = check_interval
        self._saver: ShardedBankSaver | None = None
        self._losses: dict[str, FeatureGateCouplingLoss] = {}
        # a checkpoint is read before the banks exist, so its banks are kept
        # until before_train
        self._loaded_state: dict[str, Any] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the checkpoint's banks until ours are built."""
        if self.load_banks:
            self._loaded_state = checkpoint.get(STATE)
            _check_loaded_state(self._loaded_state)
        if self._loaded_state is None and runner._resume:
            runner.logger.warning(
                'The run resumes without memory banks (none in the '
                'checkpoint, or load_banks=False): they are initialised at '
                'random.'
            )

    def before_train(self, runner: Runner) -> None:
        """Build the banks; restore them from the loaded checkpoint, if any."""
        if is_schedule_preview(runner):
            return
        model = unwrapped_model(runner)
        dataset = runner.train_dataloader.dataset
        self._losses = _coupling_losses(model)
        check_unwrapped(dataset)
        check_unmixed(model)
        device = next(model.parameters()).device
        check_same_length(len(dataset), device)
        for name, loss in self._losses.items():
            loss.build_banks(
                model.backbone.sites,
                len(dataset),
                _labels(dataset, loss),
                self.dtype,
                self.shard,
            )
            self._restore(name, loss)
            self._move(loss, device)
        self._clear_loaded_state(runner)
        if self.shard and self.save_banks and self._saver is None:
            self._saver = ShardedBankSaver(runner, self._banks_state)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Refuse batch augments, which a hook may have switched on."""
        if self._losses:
            check_unmixed(unwrapped_model(runner))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Log the agreement every agreement_interval; write the batch."""
        for loss in self._losses.values():
            if self.every_n_train_iters(runner, self.agreement_interval):
                for site, fraction in loss.agreement().items():
                    runner.message_hub.update_scalar(
                        f'train/agreement_{site}', float(fraction)
                    )
            loss.write_banks()
            compare_copies = not self.shard and self.check_interval > 0
            if compare_copies and self.every_n_train_iters(
                runner, self.check_interval
            ):
                check_same_banks(loss)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check whether the last batch was written.

        Within an epoch the next iteration does this.
        """
        self._check_last_write()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the banks to the checkpoint."""
        self._check_last_write()
        if self.save_banks and self._losses:
            state = self._saver.state if self._saver else self._banks_state
            checkpoint[STATE] = state()

    def _check_last_write(self) -> None:
        for loss in self._losses.values():
            loss.check_last_write()

    def _banks_state(self) -> dict[str, dict]:
        return {name: banks_state(x) for name, x in self._losses.items()}

    def _move(
        self, loss: FeatureGateCouplingLoss, device: torch.device
    ) -> None:
        for bank in chain.from_iterable(loss.banks.values()):
            bank.to(device)
            if not self.shard:
                # with diff_rank_seed=True the ranks drew different initial
                # rows
                broadcast(bank.rows)

    def _restore(self, name: str, loss: FeatureGateCouplingLoss) -> None:
        saved = (self._loaded_state or {}).get(name)
        if saved is None:
            return
        if set(saved) != set(loss.banks):
            raise FGCError(
                f'the checkpoint has memory banks of {sorted(saved)}, but '
                f'this run couples {sorted(loss.banks)}; set the same sites, '
                'or load_banks=False in FGCMemoryBankHook.'
            )
        for site, banks in loss.banks.items():
            for kind, bank in banks._asdict().items():
                bank.load_state_dict(saved[site][kind])

    def _clear_loaded_state(self, runner: Runner) -> None:
        missing = sorted(set(self._losses) - set(self._loaded_state or ()))
        if self._loaded_state is not None and missing:
            names = ', '.join(missing)
            runner.logger.warning(
                'The checkpoint has memory banks of '
                f'{", ".join(self._loaded_state)}, but not of {names}; those '
                f'of {names} are initialised at random.'
            )
        self._loaded_state = None


def _check_loaded_state(state: Any) -> None:
    valid = state is None or (
        isinstance(state, dict)
        and all(isinstance(banks, dict) for banks in state.values())
    )
    if not valid:
        raise FGCError(
            f'the entry {STATE!r} of the checkpoint is {state!r:.60}, not '
            'the state of memory banks; use another checkpoint, or set '
            'load_banks=False in FGCMemoryBankHook.'
        )


def _coupling_losses(
    model: BaseModel,
) -> dict[str, FeatureGateCouplingLoss]:
    losses = {
        loss.name: loss
        for loss in getattr(model, 'gate_losses', ())
        if isinstance(loss, FeatureGateCouplingLoss)
    }
    if not isinstance(model, GateLossesMixin) or not losses:
        raise FGCError(
            f'{type(model).__name__} has no FeatureGateCouplingLoss, but '
            'FGCMemoryBankHook is in custom_hooks; add the loss to '
            'gate_losses of a GatedImageClassifier or GatedModel, or remove '
            'the hook.'
        )
    return losses


def _labels(
    dataset: BaseDataset, loss: FeatureGateCouplingLoss
) -> Tensor | None:
    if loss.neighbor_source != 'label':
        return None
    if not hasattr(dataset, 'get_gt_labels'):
        raise FGCError(
            f"neighbor_source='label' needs all labels, and "
            f'{type(dataset).__name__} has no get_gt_labels(); use a data '
            'set of mmpretrain.'
        )
    # not get_gt_labels(), which fails for multi-label images
    infos = map(dataset.get_data_info, range(len(dataset)))
    return LabelNeighbors.single_labels([x.get('gt_label') for x in infos])
