"""A memory bank: a moving average for every training image."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fgc_mm.errors import FGCError, check_choice
from fgc_mm.functional import (
    nearest_neighbors,
    nearest_neighbors_of_each,
    neighbor_contrast,
)
from fgc_mm.functional.number import is_number
from fgc_mm.memory.batch_write import write_rows
from fgc_mm.memory.shard import Shard
from fgc_mm.memory.sharded_contrast import sharded_neighbor_contrast
from fgc_mm.memory.sharded_neighbors import sharded_nearest_neighbors

_INITS = 'uniform', 'unit'
# Rows drawn at a time; a multiple of the 16 numbers that torch draws at once.
_DRAWN = 1 << 14


def _draw(
    length: int, dim: int, init: str, generator: torch.Generator | None
) -> Tensor:
    # Always on the CPU: the same seed gives the same bank on every machine
    # and rank.
    rows = torch.empty(length, dim, dtype=torch.float32, device='cpu')
    if init == 'uniform':
        bound = 1 / sqrt(dim / 3)
        return rows.uniform_(-bound, bound, generator=generator)
    return normalize(rows.normal_(generator=generator), dim=1)


def _initial_rows(
    length: int,
    dim: int,
    init: str,
    generator: torch.Generator | None,
    dtype: torch.dtype,
    local_range: range,
) -> Tensor:
    """The rows of the initial bank on this process; all rows are drawn."""
    rows = torch.empty(len(local_range), dim, dtype=dtype, device='cpu')
    for start in range(0, length, _DRAWN):
        drawn = _draw(min(_DRAWN, length - start), dim, init, generator)
        low = max(start, local_range.start)
        high = min(start + len(drawn), local_range.stop)
        if low < high:
            some = drawn[low - start : high - start]
            rows[low - local_range.start : high - local_range.start] = some
    return rows


class MemoryBank:
    """A (D, C) table with one row per training image.

    ``update`` writes ``row <- normalise(m * row + (1 - m) * new)``: momentum
    m is the weight of the **old** row, the opposite of mmengine's EMA and of
    BatchNorm. Source: "Feature-Gate Coupling for Dynamic Network Pruning"
    (arXiv 2111.14302), section 3.3.

    It is deliberately not a Module: as a buffer of the network DDP would
    broadcast rank 0's rows to the others, an EMA hook would average it, and
    every checkpoint would depend on one training set. Its owner moves, saves
    and loads it.

    Args:
        length: D, the number of training images.
        dim: C, the number of channels.
        momentum: weight of the old row, in [0, 1).
        normalize: L2-normalise written rows (published code); False keeps
            the plain average (paper).
        init: 'uniform', in +-1/sqrt(C/3) (published code), or 'unit', random
            unit vectors (paper).
        dtype: of the rows; averages are computed in at least float32.
        generator: a CPU generator for the initial rows; None: torch's.
        shard: the rows on this process; None: all. The results are those of
            a whole bank, and its state is loaded; :meth:`nearest` and
            :meth:`contrast` are then collective: all processes call them
            together, each with its own queries, and a ``generator`` must
            have the same seed on all.

    Raises:
        FGCError: a size, momentum or init is invalid.
    """

    def __init__(
        self,
        length: int,
        dim: int,
        momentum: float = 0.5,
        normalize: bool = True,
        init: str = 'uniform',
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
        shard: Shard | None = None,
    ) -> None:
        _check_options(length, dim, momentum, init)
        self.momentum = momentum
        self.normalize = normalize
        self.length = length
        self.shard = shard if shard and shard.world_size > 1 else None
        own = self.shard or Shard(length, 0, 1)
        self.local_range = range(own.start, own.stop)
        self.rows = _initial_rows(
            length, dim, init, generator, dtype, self.local_range
        )

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        dim = self.rows.shape[1]
        return (
            f'{type(self).__name__}({self.length}, {dim}, '
            f'momentum={self.momentum}, '
            f'normalize={self.normalize}, dtype={self.rows.dtype})'
        )

    @torch.no_grad()
    def update(self, indices: Tensor, values: Tensor) -> None:
        """Update rows with new values; all are written, or none.

        If an index occurs twice, its first occurrence is written and the
        others are ignored.

        Args:
            indices: (N,) int64 row indices (``sample_idx``).
            values: (N, C), any floating dtype; moved to the rows' device.

        Raises:
            FGCError: an index outside the bank, a value that is not finite
                in the rows' dtype, or shapes that do not match.
        """
        self.check(indices, values)
        indices = indices.to(self.rows.device, torch.int64)
        write_rows([self], indices, [values.to(self.rows.device)])

    def nearest(self, queries: Tensor, k: int, exclude: Tensor) -> Tensor:
        """The k nearest rows; see :func:`nearest_neighbors`."""
        if self.shard is not None:
            return sharded_nearest_neighbors(
                queries, self.rows, self.shard, k, exclude
            )
        return nearest_neighbors(queries, self.rows, k, exclude)

    def contrast(
        self,
        queries: Tensor,
        positives: Tensor,
        temperature: float,
        form: str,
        eps: float,
    ) -> Tensor:
        """Contrast with all rows; see :func:`neighbor_contrast`."""
        options = positives, temperature, form, eps
        if self.shard is not None:
            return sharded_neighbor_contrast(
                queries, self.rows, self.shard, *options
            )
        return neighbor_contrast(queries, self.rows, *options)

    def local_rows(
        self, ordered: Tensor, source: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Local indices of rows, and the values to write there.

        Rows on other processes are replaced by a row of the batch that is
        here. If none is here, an arbitrary row is returned, which must not
        change.

        Args:
            ordered: (N,) row indices, increasing.
            source: (N,) the positions of their values in the batch.

        Returns:
            (N,) local row indices, (N,) the positions of their values in the
            batch, and, if some rows may be on other processes, (N, 1) bool:
            true for a row that must not change.
        """
        if self.shard is None:
            return ordered, source, None
        start, stop = self.local_range.start, self.local_range.stop
        here = (ordered >= start) & (ordered < stop)
        position = torch.arange(len(ordered), device=ordered.device)
        position = torch.where(here, position, here.int().argmax())
        local = ordered.index_select(0, position) - start
        return (
            local.clamp(0, stop - start - 1),
            source.index_select(0, position),
            ~here.index_select(0, position).unsqueeze(1),
        )

    def check(self, indices: Tensor, values: Tensor) -> None:
        """Raise the errors of :meth:`update`, without writing."""
        self._check_shapes(indices, values)
        device = self.rows.device
        self._check_values(indices.to(device), values.to(device))

    def blend(self, old: Tensor, new: Tensor) -> Tensor:
        """The rows to write, from old rows and new values, (..., C)."""
        # lerp in half precision would lose small increments
        dtype = torch.promote_types(old.dtype, torch.float32)
        row = torch.lerp(new.to(dtype), old.to(dtype), self.momentum)
        row = normalize(row, dim=-1) if self.normalize else row
        return row.to(old.dtype)

    def _check_shapes(self, indices: Tensor, values: Tensor) -> None:
        dim = self.rows.shape[1]
        whole = not (indices.is_floating_point() or indices.is_complex())
        fits = indices.ndim == 1 and values.shape == (len(indices), dim)
        if not (whole and fits and values.is_floating_point()):
            raise FGCError(
                f'indices are {indices.dtype} {tuple(indices.shape)} and '
                f'values {values.dtype} {tuple(values.shape)}, but integers '
                f'(N,) and floats (N, {dim}) are needed: pass one sample_idx '
                'and one vector per image'
            )

    def _check_values(self, indices: Tensor, values: Tensor) -> None:
        length = self.length
        outside = (indices < 0) | (indices >= length)
        broken = ~values.to(self.rows.dtype).isfinite().all(1)
        # one check for both, since each synchronises with the device
        if not (outside | broken).any():
            return
        if outside.any():
            raise FGCError(
                f'sample_idx {int(indices[outside][0])} is outside the '
                f'memory bank ({length} rows, one per image of the training '
                'set); ConcatDataset and changed data sets give such '
                'indices: build the bank with one row per distinct '
                'sample_idx, and give every image its own below that number'
            )
        raise FGCError(
            f'the value for sample_idx {int(indices[broken][0])} is not '
            f'finite in {self.rows.dtype}, but such a row would break all '
            'later losses: lower the learning rate, check that image, or use '
            'a float32 bank'
        )

    def to(self, device: torch.device | str) -> 'MemoryBank':
        """Move the rows in place; returns self, as Module.to does."""
        self.rows = self.rows.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """The rows, not copied; options are in the config."""
        return {'rows': self.rows}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy saved rows, keeping device and dtype.

        Raises:
            FGCError: the state has no rows, or rows of another shape.
        """
        if 'rows' not in state:
            raise FGCError(
                f'a memory bank state has the keys {sorted(state)}, but '
                "'rows' is needed: pass what MemoryBank.state_dict returned"
            )
        saved = tuple(state['rows'].shape)
        own = self.length, self.rows.shape[1]
        if saved != own:
            raise FGCError(
                f'the saved memory bank has shape {saved} and this one has '
                f'{own}, but a row belongs to one image and one site: resume '
                'with the same training set and sites, or start without the '
                'saved banks (load_banks=False in FGCMemoryBankHook)'
            )
        self.rows.copy_(
            state['rows'][self.local_range.start : self.local_range.stop]
        )


def nearest_of_each(
    banks: Sequence[MemoryBank],
    queries: Sequence[Tensor],
    k: int,
    exclude: Tensor,
) -> list[Tensor]:
    """The k nearest rows in each of several banks; (N, k) each.

    Args:
        banks: All whole, or all sharded.
        queries: For each bank (N, C).
        exclude: (N,) one row of every bank to leave out per query.
    """
    if banks[0].shard is not None:
        return [
            bank.nearest(some, k, exclude)
            for bank, some in zip(banks, queries, strict=True)
        ]
    rows = [bank.rows for bank in banks]
    return nearest_neighbors_of_each(queries, rows, k, exclude)


def _check_options(length: int, dim: int, momentum: float, init: str) -> None:
    if length < 1 or dim < 1:
        raise FGCError(
            f'a memory bank of {length} rows of {dim} channels was '
            'requested, but both must be at least 1: build the training set '
            'and the sites first'
        )
    if not (is_number(momentum) and 0 <= momentum < 1):
        raise FGCError(
            f'momentum {momentum!r} is outside [0, 1), but it is the weight '
            'of the old row, and at 1 no row would change: use 0.5'
        )
    check_choice(f'init={init!r} of a memory bank', init, _INITS)
