"""Memory layouts: positions of a tensor's elements in a (C, H, W) map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

Step = tuple[int, int, int]


@dataclass(frozen=True)
class Atom:
    """A dimension, or a factor of one: ``size`` steps of a stride vector."""

    size: int
    step: Step

    def scaled(self, factor: int, size: int) -> Atom:
        a, b, c = self.step
        return Atom(size, (a * factor, b * factor, c * factor))


@dataclass(frozen=True)
class Layout:
    """Positions of a tensor's elements in a value.

    Attributes:
        value: Index of the value.
        start: Coordinates of the tensor's first element.
        dims: For every dimension of the tensor its factors, slowest first;
            none for a dimension of size one.
    """

    value: int
    start: Step
    dims: tuple[tuple[Atom, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(a.size for a in dim) for dim in self.dims)

    def atoms(self) -> list[Atom]:
        """Factors of all dimensions, slowest first."""
        return [atom for dim in self.dims for atom in dim]

    def permuted(self, dims: Sequence[int]) -> Layout:
        return replace(self, dims=tuple(self.dims[d] for d in dims))

    def expanded(self, shape: Sequence[int]) -> Layout:
        dims = tuple(
            (Atom(size, (0, 0, 0)),) if not dim and size != 1 else dim
            for dim, size in zip(self.dims, shape)
        )
        return replace(self, dims=dims)

    def sliced(self, dim: int, start: int, size: int, step: int) -> Layout:
        """Slice a dimension with at most one factor."""
        (atom,) = self.dims[dim]
        new = (atom.scaled(step, size),) if size > 1 else ()
        dims = (*self.dims[:dim], new, *self.dims[dim + 1 :])
        return Layout(self.value, self._moved(atom, start), dims)

    def selected(self, dim: int, index: int) -> Layout:
        """Select an index of a dimension with at most one factor."""
        dims = (*self.dims[:dim], *self.dims[dim + 1 :])
        if not self.dims[dim]:
            return replace(self, dims=dims)
        return Layout(self.value, self._moved(self.dims[dim][0], index), dims)

    def flipped(self, dim: int) -> Layout:
        dims, start = list(self.dims), self
        for atom in self.dims[dim]:
            start = replace(start, start=start._moved(atom, atom.size - 1))
        dims[dim] = tuple(a.scaled(-1, a.size) for a in self.dims[dim])
        return replace(start, dims=tuple(dims))

    def _moved(self, atom: Atom, count: int) -> Step:
        return tuple(s + count * v for s, v in zip(self.start, atom.step))

    def reshaped(self, shape: Sequence[int]) -> Layout | None:
        """The layout with another shape; ``None`` if a copy is needed."""
        atoms = merged(self.atoms())
        dims: list[tuple[Atom, ...]] = []
        for size in reversed(shape):
            dim: list[Atom] = []
            while size > 1:
                atom = atoms.pop()
                if size % atom.size == 0:
                    dim.insert(0, atom)
                    size //= atom.size
                elif atom.size % size == 0:
                    dim.insert(0, Atom(size, atom.step))
                    atoms.append(atom.scaled(size, atom.size // size))
                    size = 1
                else:
                    return None
            dims.insert(0, tuple(merged(dim)))
        return replace(self, dims=tuple(dims))


def merged(atoms: Sequence[Atom]) -> list[Atom]:
    """Merge neighbouring factors that form one dimension."""
    found: list[Atom] = []
    for atom in atoms:
        if atom.size == 1:
            continue
        whole = atom.scaled(atom.size, 0).step
        if found and any(whole) and found[-1].step == whole:
            atom = Atom(found.pop().size * atom.size, atom.step)
        found.append(atom)
    return found


def refined(
    first: Sequence[Atom], second: Sequence[Atom]
) -> list[tuple[int, Step, Step]] | None:
    """Split two descriptions of one dimension into common factors."""
    first, second = list(first), list(second)
    pairs = []
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


def extents(atoms: Sequence[Atom]) -> Step | None:
    """(C, H, W) of the box that these factors fill exactly once.

    ``None``: they leave gaps, repeat elements, or run along two axes.
    """
    box = [1, 1, 1]
    for axis in range(3):
        mine = sorted(
            (a for a in atoms if a.step[axis]), key=lambda a: a.step[axis]
        )
        for atom in mine:
            if atom.step[axis] != box[axis]:
                return None
            if sum(map(bool, atom.step)) != 1:
                return None
            box[axis] *= atom.size
    if math.prod(box) != math.prod(a.size for a in atoms):
        return None
    return tuple(box)
