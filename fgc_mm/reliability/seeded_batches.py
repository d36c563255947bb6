"""Batches whose augmentation depends on their number alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import BatchSampler, Sampler

from fgc_mm.reliability.random_states import mixed_seed, seeded


class SeededBatch(list):
    """The indices of a batch; whoever loads them draws from its own seed.

    ``DataLoader`` hands the batch to the process that loads it (a worker, or
    the main one) and that process iterates over it, loading image by image:
    the generators are seeded before the first and given back after the last.

    Args:
        indices: The images.
        seed: The seed.
    """

    def __init__(self, indices: Iterable[int], seed: int) -> None:
        super().__init__(indices)
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        """The indices, with the generators seeded in between."""
        with seeded(self.seed):
            yield from super().__iter__()

    def __reduce__(self) -> tuple:
        """To a worker, without iterating: that would seed this process."""
        return SeededBatch, (self[:], self.seed)


class SeededBatches(Sampler):
    """A batch sampler's batches, each with a seed of its own.

    The seed follows from the run's seed, the rank, the epoch and the number
    of the batch in its epoch. So the pixels of a batch depend neither on how
    many workers there are and how long they have lived, nor on the batches
    before it, which a resumed epoch can therefore leave out unread.

    Args:
        batches: The batch sampler.
        seed: The run's seed.
        rank: This process.
    """

    def __init__(self, batches: BatchSampler, seed: int, rank: int) -> None:
        self.batches, self.seed, self.rank = batches, seed, rank
        self.epoch = 0
        self.skip = 0  # so many batches are left out, once
        self.first = 0  # number of the first batch, where a sampler skips

    def __len__(self) -> int:
        """Batches per epoch, those left out among them."""
        return len(self.batches)

    def __iter__(self) -> Iterator[SeededBatch]:
        """The batches of an epoch."""
        skip, self.skip = self.skip, 0
        first, self.first = self.first, 0
        for number, indices in enumerate(self.batches, start=first):
            if number >= skip:
                place = self.rank, self.epoch, number
                yield SeededBatch(indices, mixed_seed(self.seed, *place))
        self.epoch += 1

    def __getattr__(self, name: str) -> Any:
        """``sampler``, ``batch_size`` and so on are the batch sampler's."""
        if name == 'batches':  # not there yet: a copy is being made
            raise AttributeError(name)
        return getattr(self.batches, name)
