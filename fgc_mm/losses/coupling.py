"""The feature-gate coupling loss of FGC."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fgc_mm.async_read import read_would_block
from fgc_mm.errors import FGCError
from fgc_mm.functional import (
    copied_to,
    global_average_pool,
    neighborhood_agreement,
    on_device,
)
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses.base import GateBatch, GateLoss, total
from fgc_mm.losses.coupled_batch import CoupledBatch, sample_indices
from fgc_mm.losses.coupling_switches import CouplingSwitches, choose
from fgc_mm.losses.label_neighbors import LabelNeighbors
from fgc_mm.memory import BatchWrite, MemoryBank, Shard, SiteBanks
from fgc_mm.memory.bank import nearest_of_each
from fgc_mm.memory.gather import gather_tables
from fgc_mm.registry import MODELS
from fgc_mm.sites import GateSite


@MODELS.register_module()
class FeatureGateCouplingLoss(GateLoss):
    """Contrastive loss of gates whose positives are neighbours of features.

    At each coupled site the K rows of the feature bank that are nearest to
    the image's pooled activation are the positives in a contrastive loss of
    its gate vector against the gate bank (FGC, arXiv 2111.14302, section
    3.2, Eq. 4 to 8). Mean over the batch, sum over sites. Banks are built
    and written by ``FGCMemoryBankHook``, one row per training image. The gate
    vector has one entry per decision: with grouped gates it is shorter than
    the feature, which has all channels.

    Args:
        sites: The last n gated sites, or shell patterns on their names.
        num_neighbors: K.
        temperature: Contrast temperature tau.
        momentum: Weight of the *old* row when a bank is written.
        preset: ``'reference'`` (published code) or ``'paper'``; sets every
            argument below that is ``None``.
        form: ``'log_sum'`` (-log of the positives' summed probability) or
            ``'sum_log'`` (Eq. 8; about K times larger).
        eps: Added to the positives' summed probability inside the logarithm
            of ``'log_sum'``: 1e-7 in the published code, 0 in the paper and
            with ``'sum_log'``. The gradient of an image whose positives have
            a summed probability s is multiplied by s / (s + eps).
        include_self: Whether an image is its own positive.
        warmup_epochs: Number of coupled epochs in which the image itself is
            the only positive.
        normalize_rows: Whether bank rows are normalised to unit length.
        bank_init: ``'uniform'`` in +-1/sqrt(C/3), or random ``'unit'``.
        gate_vector: ``'logits'``, or ``'probs'`` (their sigmoid). Both
            presets use the logits: the paper's gating probabilities are the
            linear output of its Eq. 3.
        neighbor_source: ``'feature'``, ``'gate'`` (kNN in the gate bank) or
            ``'label'`` (random images of the same class); Table 4.
        share_neighbors: Whether the last coupled site's neighbours are used
            for all sites; Table 4.
        loss_weight: eta; a number or a scheduled weight.
        name: Logged as ``loss_<name>``.

    Raises:
        FGCError: An unknown option. When banks are built or used: K >= D, a
            pattern without a match, a missing or wrong ``sample_idx``, a
            missing hook.

    Example:
        >>> import torch
        >>> from fgc_mm.losses import GateBatch
        >>> from fgc_mm.sites import GateRecord, GateSite
        >>> site = GateSite('conv1', (), (), in_channels=3, channels=8)
        >>> loss = FeatureGateCouplingLoss(sites=1, num_neighbors=2)
        >>> loss.switches.form, loss.switches.warmup_epochs
        ('log_sum', 20)
        >>> loss = FeatureGateCouplingLoss(
        ...     sites=1, num_neighbors=2, warmup_epochs=0)
        >>> loss.build_banks([site], length=10)  # FGCMemoryBankHook does this
        >>> logits = torch.randn(4, 8, requires_grad=True)
        >>> record = GateRecord(
        ...     site, torch.randn(4, 8, 5, 5), logits, logits.sigmoid(),
        ...     (logits > 0) * 1.0)
        >>> samples = [dict(sample_idx=i) for i in range(4)]
        >>> loss(GateBatch([record], samples)).backward()
        >>> logits.grad.shape
        torch.Size([4, 8])
    """

    def __init__(
        self,
        sites: int | Sequence[str] = 2,
        num_neighbors: int = 200,
        temperature: float = 0.07,
        momentum: float = 0.5,
        preset: str = 'reference',
        form: str | None = None,
        eps: float | None = None,
        include_self: bool | None = None,
        warmup_epochs: int | None = None,
        normalize_rows: bool | None = None,
        bank_init: str | None = None,
        gate_vector: str = 'logits',
        neighbor_source: str = 'feature',
        share_neighbors: bool = False,
        loss_weight: float | Mapping[str, Any] = 0.003,
        name: str = 'coupling',
    ) -> None:
        super().__init__(loss_weight, name)
        self.switches = CouplingSwitches.of(
            preset,
            form=form,
            eps=eps,
            include_self=include_self,
            warmup_epochs=warmup_epochs,
            normalize_rows=normalize_rows,
            bank_init=bank_init,
        )
        self.wanted_sites = sites
        self.num_neighbors = num_neighbors
        self.temperature = temperature
        self.momentum = momentum
        self.gate_vector = choose('gate_vector', gate_vector)
        self.neighbor_source = choose('neighbor_source', neighbor_source)
        self.share_neighbors = share_neighbors
        self.banks: dict[str, SiteBanks] = {}
        self._labels: LabelNeighbors | None = None
        self._images: list[int] = []
        self._pending: dict[str, CoupledBatch] = {}
        self._last_write: BatchWrite | None = None

    def build_banks(
        self,
        sites: Sequence[GateSite],
        length: int,
        labels: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        shard: bool = False,
    ) -> None:
        """Create the banks, one row per training image.

        Args:
            sites: The backbone's gate sites.
            length: D, number of images in the training set.
            labels: (D,) classes; for ``neighbor_source='label'``.
            dtype: Type of the rows.
            shard: Whether each process holds only a part of the rows.
        """
        k = self.num_neighbors
        if not (isinstance(k, int) and 0 < k < length):
            raise FGCError(
                f'num_neighbors={k!r} must be a whole number between 1 and '
                f'{length - 1}, since the training set has {length} images; '
                'set a smaller num_neighbors in FeatureGateCouplingLoss.'
            )
        if self.neighbor_source == 'label':
            if labels is None:
                raise FGCError(
                    "neighbor_source='label' needs the labels of all images, "
                    'but build_banks got none; pass labels=...'
                )
            self._labels = LabelNeighbors(labels, self.num_neighbors)
        names = [site.name for site in sites]
        chosen = self.select_sites(self.wanted_sites, names)

        def bank(dim: int) -> MemoryBank:
            return MemoryBank(
                length,
                dim,
                momentum=self.momentum,
                normalize=self.switches.normalize_rows,
                init=self.switches.bank_init,
                dtype=dtype,
                shard=Shard.of_this_rank(length) if shard else None,
            )

        self.banks = {
            site.name: SiteBanks(bank(site.channels), bank(site.decisions))
            for site in sites
            if site.name in chosen
        }

    def compute(self, batch: GateBatch) -> Tensor:
        """The coupling loss; keeps the batch until banks are written; ()."""
        self._check_ready()
        coupled = [r for r in batch.records if r.site.name in self.banks]
        length = len(next(iter(self.banks.values())).feature)
        self._images = sample_indices(batch.data_samples, length)
        gates = [getattr(r, self.gate_vector).float() for r in coupled]
        rows = on_device(self._images, gates[0].device)
        self._pending = {
            record.site.name: CoupledBatch(
                rows,
                global_average_pool(
                    self.activation_of(record).detach().float()
                ),
                gate.detach(),
            )
            for record, gate in zip(coupled, gates)
        }
        return total(
            self.banks[record.site.name].gate.contrast(
                gate,
                positives,
                self.temperature,
                self.switches.form,
                self.switches.eps,
            )
            for record, gate, positives in zip(
                coupled, gates, self._positives(batch.progress)
            )
        )

    def agreement(self, queries: int = 64) -> dict[str, Tensor]:
        """Agreement of the neighbourhoods of features and gates.

        Args:
            queries: Number of images of the pending batch, the first ones.

        Returns:
            For each site () in [0, 1], the fraction of the K nearest rows of
            the feature bank that are among the K nearest of the gate bank.
        """
        if not self._pending:
            return {}
        names = list(self._pending)
        few = [
            CoupledBatch(*(x[:queries] for x in batch))
            for batch in self._pending.values()
        ]
        spaces = (self._nearest(names, few, x) for x in ('feature', 'gate'))
        return dict(zip(names, map(neighborhood_agreement, *spaces)))

    def write_banks(self) -> None:
        """Write the pending batches of all ranks; collective.

        Raises:
            FGCError: A value is not finite, so nothing was written. On an
                accelerator it is raised by the next call or by
                :meth:`check_last_write`.
        """
        self.check_last_write()
        pending, self._pending = self._pending, {}
        if not pending:
            return
        batches = list(pending.values())
        parts = [b.features for b in batches] + [b.gates for b in batches]
        indices, values = gather_tables(
            [batches[0].indices, torch.cat(parts, 1)]
        )
        sites = [self.banks[name] for name in pending]
        banks = [s.feature for s in sites] + [s.gate for s in sites]
        write = BatchWrite(banks, indices, values)
        if read_would_block(values):
            self._last_write = write
        else:
            write.check()
        write.write()

    def check_last_write(self) -> None:
        """Raise FGCError if the last batch was not written."""
        written, self._last_write = self._last_write, None
        if written is not None:
            written.check()

    def drop_batch(self) -> None:
        """Drop the pending batch without writing it."""
        self._pending = {}

    def _check_ready(self) -> None:
        if not self.banks or self._pending:
            raise FGCError(
                'FeatureGateCouplingLoss has no memory banks, or the last '
                "batch was not written; add dict(type='fgc_mm."
                "FGCMemoryBankHook') to custom_hooks, without a priority: "
                'it must act before the config is checked.'
            )

    def _positives(self, progress: Progress | None) -> list[Tensor]:
        """(N, P) rows of the positives for each coupled site."""
        names = list(self._pending)
        own = self._pending[names[0]].indices[:, None]
        if self._warming_up(progress):
            return [own] * len(names)
        found = self._neighbors(names[-1:] if self.share_neighbors else names)
        if self.switches.include_self:
            found = [torch.cat([own, rows], dim=1) for rows in found]
        return found * len(names) if self.share_neighbors else found

    def _neighbors(self, names: Sequence[str]) -> list[Tensor]:
        """(N, K) rows of the neighbours for each of these sites."""
        if self.neighbor_source == 'label':
            assert self._labels is not None  # build_banks has set it
            images = torch.tensor(self._images)
            device = self._pending[names[0]].indices.device
            return [copied_to(self._labels(images), device) for _ in names]
        batches = [self._pending[name] for name in names]
        return self._nearest(names, batches, self.neighbor_source)

    def _nearest(
        self, names: Sequence[str], batches: Sequence[CoupledBatch], space: str
    ) -> list[Tensor]:
        values = 'features' if space == 'feature' else 'gates'
        return nearest_of_each(
            [getattr(self.banks[name], space) for name in names],
            [getattr(batch, values) for batch in batches],
            self.num_neighbors,
            batches[0].indices,
        )

    def _warming_up(self, progress: Progress | None) -> bool:
        epochs = self.switches.warmup_epochs
        if not epochs:
            return False
        start = self.loss_weight.first_epoch
        if progress is None or start is None:
            raise FGCError(
                f'warmup_epochs={epochs} needs the epoch; add '
                "dict(type='fgc_mm.LossProgressHook') to custom_hooks and "
                'use by_epoch=True in loss_weight.'
            )
        return progress.epoch - start < epochs
