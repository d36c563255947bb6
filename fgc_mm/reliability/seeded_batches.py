"""Batches whose augmentation depends only on their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import BatchSampler, Sampler

from fgc_mm.reliability.random_states import mixed_seed, seeded


class SeededBatch(list):
    """The indices of a batch; the generators are seeded during iteration.

    ``DataLoader`` passes the batch to the process that loads it (a worker or
    the main process). That process iterates over it to load the images, so
    the generators are seeded before the first image and restored after the
    last one.
    """

    def __init__(self, indices: Iterable[int], seed: int) -> None:
        super().__init__(indices)
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        """The indices; the generators are seeded during the iteration."""
        with seeded(self.seed):
            yield from super().__iter__()

    def __reduce__(self) -> tuple:
        """Pickle without iterating, which would seed this process."""
        return SeededBatch, (self[:], self.seed)


class SeededBatches(Sampler):
    """The batches of a batch sampler, each with a separate seed.

    The seed is computed from the run's seed, the rank, the epoch and the
    number of the batch in its epoch. So the pixels of a batch depend neither
    on the workers nor on earlier batches, and a resumed epoch can skip
    earlier batches without reading them.
    """

    def __init__(self, batches: BatchSampler, seed: int, rank: int) -> None:
        self.batches, self.seed, self.rank = batches, seed, rank
        self.epoch = 0
        self.skip = 0  # batches to skip in the next iteration
        self.first = 0  # number of the first batch, if the sampler skips

    def __len__(self) -> int:
        """Batches per epoch, including skipped ones."""
        return len(self.batches)

    def __iter__(self) -> Iterator[SeededBatch]:
        """The batches of an epoch."""
        skip, self.skip = self.skip, 0
        first, self.first = self.first, 0
        for number, indices in enumerate(self.batches, start=first):
            if number >= skip:
                seed = mixed_seed(self.seed, self.rank, self.epoch, number)
                yield SeededBatch(indices, seed)
        self.epoch += 1

    def __getattr__(self, name: str) -> Any:
        """``sampler``, ``batch_size`` and so on of the batch sampler."""
        if name == 'batches':  # not set yet, while a copy is made
            raise AttributeError(name)
        return getattr(self.batches, name)
