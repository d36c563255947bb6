"""The life of the memory banks in a run."""

from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor

from fgc_mm.engine.bank_checks import check_same_banks, check_same_length
from fgc_mm.engine.loss_progress_hook import bare_model
from fgc_mm.engine.sharded_bank_saver import (
    ShardedBankSaver,
    whole_state,
)
from fgc_mm.errors import FGCError, check_choice
from fgc_mm.losses import CoupledBatch, FeatureGateCouplingLoss
from fgc_mm.losses.label_neighbors import LabelNeighbors
from fgc_mm.memory.gather import gather_together
from fgc_mm.models.gate_losses_mixin import GateLossesMixin
from fgc_mm.registry import HOOKS

STATE = 'fgc_memory_banks'
DTYPES = ('float32', 'bfloat16', 'float16')


@HOOKS.register_module()
class FGCMemoryBankHook(Hook):
    """Builds, writes, saves and restores the banks of every coupling loss.

    Before training it sizes the banks from the training set, after each step
    it writes the batch (gathered from all ranks, so that every rank holds
    the same rows), and it carries them in the checkpoint.

    Args:
        save_banks: Put the banks into checkpoints. Without them a resumed
            run starts with random banks, and says so.
        load_banks: Take banks from a checkpoint that has them.
        agreement_interval: Every so many iterations, log how far the
            neighbourhoods of features and gates agree, per coupled site
            (share of common neighbours).
        shard: Each rank holds its share of the rows instead of all, so the
            banks' memory falls with the number of ranks. Losses, gradients
            and checkpoints are the same; a run can be resumed with another
            number of ranks, sharded or not.
        dtype: Of the rows: ``'float32'``, ``'bfloat16'`` or ``'float16'``.
        check_interval: Every so many iterations, compare the ranks' copies
            of the banks by a checksum; 0 is never.

    Raises:
        FGCError: An unknown dtype; later banks that differ between ranks,
            and what the coupling loss refuses.
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
        self.save_banks = save_banks
        self.load_banks = load_banks
        self.agreement_interval = agreement_interval
        self.shard = shard
        self.dtype = getattr(torch, dtype)
        self.check_interval = check_interval
        self._saver: ShardedBankSaver | None = None
        self._losses: dict[str, FeatureGateCouplingLoss] = {}
        # a checkpoint is read before the banks exist: keep its share
        self._stash: dict[str, Any] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the checkpoint's banks until ours are built."""
        if self.load_banks:
            self._stash = checkpoint.get(STATE)
            _check_stash(self._stash)
        if self._stash is None and runner._resume:
            runner.logger.warning(
                'The run resumes without memory banks (none in the '
                'checkpoint, or load_banks=False): they start at random.'
            )

    def before_train(self, runner: Runner) -> None:
        """Build the banks, and restore them if there is something."""
        model = bare_model(runner)
        dataset = runner.train_dataloader.dataset
        self._losses = _coupling_losses(model)
        refuse_wrapped(dataset)
        _refuse_mixing(model)
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
            self._place(loss, device)
        self._forget_stash(runner)
        if self.shard and self.save_banks and self._saver is None:
            self._saver = ShardedBankSaver(runner, self._whole_state)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Log the agreement now and then, and write the batch."""
        for loss in self._losses.values():
            if self.every_n_train_iters(runner, self.agreement_interval):
                _log_agreement(runner, loss)
            loss.write_banks(_gather)
            copies = not self.shard and self.check_interval > 0
            if copies and self.every_n_train_iters(
                runner, self.check_interval
            ):
                check_same_banks(loss)

    def after_train_epoch(self, runner: Runner) -> None:
        """Look at the last batch, of which the next one would have told."""
        self._settle()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the banks beside the weights."""
        self._settle()
        if self.save_banks and self._losses:
            collected = self._saver.state if self._saver else None
            checkpoint[STATE] = (collected or self._whole_state)()

    def _settle(self) -> None:
        for loss in self._losses.values():
            loss.settle()

    def _whole_state(self) -> dict[str, dict]:
        return {name: whole_state(x) for name, x in self._losses.items()}

    def _place(
        self, loss: FeatureGateCouplingLoss, device: torch.device
    ) -> None:
        for banks in loss.banks.values():
            banks.to(device)
            if not self.shard:
                # where diff_rank_seed=True, every rank drew rows of its own
                broadcast(banks.feature.rows)
                broadcast(banks.gate.rows)

    def _restore(self, name: str, loss: FeatureGateCouplingLoss) -> None:
        saved = (self._stash or {}).get(name)
        if saved is None:
            return
        if set(saved) != set(loss.banks):
            raise FGCError(
                f'the checkpoint has memory banks of {sorted(saved)}, but '
                f'this run couples {sorted(loss.banks)}; set the same sites, '
                'or load_banks=False in FGCMemoryBankHook.'
            )
        for site, banks in loss.banks.items():
            banks.load_state_dict(saved[site])

    def _forget_stash(self, runner: Runner) -> None:
        fresh = sorted(set(self._losses) - set(self._stash or ()))
        if self._stash is not None and fresh:
            runner.logger.warning(
                f'The checkpoint has no memory banks of {", ".join(fresh)}, '
                f'but of {", ".join(self._stash)}: they start at random.'
            )
        self._stash = None


def _check_stash(stash: Any) -> None:
    whole = stash is None or (
        isinstance(stash, dict)
        and all(isinstance(banks, dict) for banks in stash.values())
    )
    if not whole:
        raise FGCError(
            f'the checkpoint has {stash!r:.60} where the memory banks '
            'belong; it is damaged: take another one, or set '
            'load_banks=False in FGCMemoryBankHook.'
        )


def refuse_wrapped(dataset: BaseDataset) -> None:
    """Only a plain data set gives every image one index of its own.

    Raises:
        FGCError: The data set wraps others (``ConcatDataset``,
            ``RepeatDataset``, ``ClassBalancedDataset``, ``Subset``, ...).
    """
    if hasattr(dataset, 'dataset') or hasattr(dataset, 'datasets'):
        raise FGCError(
            f'the training set is a {type(dataset).__name__}, in which '
            'sample_idx collides, repeats or has holes, but the memory '
            'banks have one row per image; give FGCMemoryBankHook a plain '
            'data set (for a part of one: indices=...).'
        )


def _refuse_mixing(model: BaseModel) -> None:
    augments = getattr(model.data_preprocessor, 'batch_augments', None)
    # mmdet's batch augments, which only pad and resize, have no such list
    kinds = [type(a).__name__ for a in getattr(augments, 'augments', ())]
    if kinds:
        raise FGCError(
            f'{" and ".join(kinds)} mixes images, and a mixed image has no '
            'row of its own in the memory banks; remove the batch augments '
            'from train_cfg or data_preprocessor.'
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
            f'{type(model).__name__} has no FeatureGateCouplingLoss for '
            'FGCMemoryBankHook to serve; add one to gate_losses of a '
            'GatedImageClassifier or GatedModel, or remove the hook.'
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
    # not get_gt_labels(), which fails where images have several
    infos = map(dataset.get_data_info, range(len(dataset)))
    return LabelNeighbors.single_labels([x.get('gt_label') for x in infos])


def _gather(batch: CoupledBatch) -> CoupledBatch:
    return CoupledBatch(*gather_together(batch))


def _log_agreement(runner: Runner, loss: FeatureGateCouplingLoss) -> None:
    for site, share in loss.agreement().items():
        runner.message_hub.update_scalar(
            f'train/agreement_{site}', float(share)
        )
