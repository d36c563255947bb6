"""Memory layouts: positions of a tensor's elements in a (C, H, W) map."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

Step = tuple[int, int, int]  # of channels, rows and columns
Box = tuple[int, int, int]  # (C, H, W)


@dataclass(frozen=True)
class DimFactor:
    """A dimension, or a factor of one: ``size`` steps of a stride vector."""

    size: int
    step: Step

    def scaled(self, factor: int, size: int) -> DimFactor:
        return DimFactor(size, triple(factor * n for n in self.step))


Dim = tuple[DimFactor, ...]  # factors of a dimension, slowest first
# axes of the dimensions, by rank: (1, C) channels; (1, L, C) tokens, in a map
# of (C, 1, L); (N, C, H, W) in a map of (N C, H, W)
DEFAULT_AXES = {2: (0, 0), 3: (2, 2, 0), 4: (0, 0, 1, 2)}


@dataclass(frozen=True)
class ValueLayout:
    """Positions of a tensor's elements in a value.

    Attributes:
        value: Index of the value.
        dims: For every dimension of the tensor its factors, slowest first;
            none for a dimension of size one.
        start: Coordinates of the tensor's first element.
    """

    value: int
    dims: tuple[Dim, ...]
    start: Step = (0, 0, 0)

    @classmethod
    def packed(
        cls,
        value: int,
        shape: Sequence[int],
        axes: Sequence[int] | None = None,
    ) -> ValueLayout:
        """A layout whose dimensions run along one axis each and fill a box.

        Of several dimensions along one axis the last is the fastest. The
        default axes are ``DEFAULT_AXES`` of the tensor's rank.
        """
        axes = axes or DEFAULT_AXES[len(shape)]
        box = [1, 1, 1]
        dims: list[Dim] = []
        for size, axis in zip(reversed(shape), reversed(axes)):
            step = triple(box[axis] if n == axis else 0 for n in range(3))
            dims.insert(0, dim_of(size, step))
            box[axis] *= size
        return cls(value, tuple(dims))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(a.size for a in dim) for dim in self.dims)

    @property
    def box(self) -> Box:
        """The box that the tensor fills.

        Raises:
            ValueError: It does not fill a box.
        """
        box = extents(self.atoms())
        if box is None:
            raise ValueError(f'the layout does not fill a box: {self.dims}')
        return box

    def atoms(self) -> list[DimFactor]:
        """Factors of all dimensions, slowest first."""
        return [factor for dim in self.dims for factor in dim]

    def permuted(self, dims: Sequence[int]) -> ValueLayout:
        return replace(self, dims=tuple(self.dims[d] for d in dims))

    def expanded(self, shape: Sequence[int]) -> ValueLayout:
        dims = tuple(
            (DimFactor(size, (0, 0, 0)),) if not dim and size != 1 else dim
            for dim, size in zip(self.dims, shape)
        )
        return replace(self, dims=dims)

    def sliced(
        self, dim: int, start: int, size: int, step: int
    ) -> ValueLayout:
        """Slice a dimension with at most one factor."""
        (factor,) = self.dims[dim]
        new = dim_of(size, factor.scaled(step, size).step)
        dims = (*self.dims[:dim], new, *self.dims[dim + 1 :])
        first = triple(s + start * v for s, v in zip(self.start, factor.step))
        return ValueLayout(self.value, dims, first)

    def selected(self, dim: int, index: int) -> ValueLayout:
        """Select an index of a dimension with at most one factor."""
        part = self.sliced(dim, index, 1, 1) if self.dims[dim] else self
        return replace(part, dims=self.dims[:dim] + self.dims[dim + 1 :])

    def reshaped(self, shape: Sequence[int]) -> ValueLayout | None:
        """The layout with another shape; ``None`` if a copy is needed."""
        atoms = merged(self.atoms())
        dims: list[Dim] = []
        for size in reversed(shape):
            dim: list[DimFactor] = []
            while size > 1:
                factor = atoms.pop()
                if size % factor.size == 0:
                    dim.insert(0, factor)
                    size //= factor.size
                elif factor.size % size == 0:
                    dim.insert(0, DimFactor(size, factor.step))
                    atoms.append(factor.scaled(size, factor.size // size))
                    size = 1
                else:
                    return None
            dims.insert(0, tuple(merged(dim)))
        return replace(self, dims=tuple(dims))


def triple(numbers: Iterable[int]) -> tuple[int, int, int]:
    """Three numbers as a tuple."""
    channels, rows, columns = numbers
    return channels, rows, columns


def dim_of(size: int, step: Step) -> Dim:
    """A dimension of one factor; of none if its size is one."""
    return (DimFactor(size, step),) if size > 1 else ()


def flat_axes(shape: Sequence[int]) -> Sequence[int]:
    """Axes of a tensor whose elements are the columns of a map."""
    return (2,) * len(shape)


def merged(atoms: Sequence[DimFactor]) -> list[DimFactor]:
    """Merge neighbouring factors that form one dimension."""
    found: list[DimFactor] = []
    for factor in atoms:
        if factor.size == 1:
            continue
        whole = factor.scaled(factor.size, 0).step
        if found and any(whole) and found[-1].step == whole:
            factor = DimFactor(found.pop().size * factor.size, factor.step)
        found.append(factor)
    return found


def refined(
    first: Sequence[DimFactor], second: Sequence[DimFactor]
) -> list[tuple[int, Step, Step]] | None:
    """Split two descriptions of one dimension into common factors."""
    first, second = list(first), list(second)
    pairs: list[tuple[int, Step, Step]] = []
    while first and second:
        a, b = first.pop(), second.pop()
        size = math.gcd(a.size, b.size)
        if size not in (a.size, b.size):
            return None
        pairs.insert(0, (size, a.step, b.step))
        if a.size > size:
            first.append(a.scaled(size, a.size // size))
        if b.size > size:
            second.append(b.scaled(size, b.size // size))
    return None if first or second else pairs


def extents(atoms: Sequence[DimFactor]) -> Box | None:
    """(C, H, W) of the box that these factors fill exactly once.

    ``None``: they leave gaps, repeat elements, or run along two axes.
    """
    box = [1, 1, 1]
    for axis in range(3):
        mine = sorted(
            (a for a in atoms if a.step[axis]), key=lambda a: a.step[axis]
        )
        for factor in mine:
            if factor.step[axis] != box[axis]:
                return None
            if sum(map(bool, factor.step)) != 1:
                return None
            box[axis] *= factor.size
    if math.prod(box) != math.prod(a.size for a in atoms):
        return None
    return triple(box)
