"""How much a search may compute: counted, not timed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# What calling a module costs, in elements: on one core a call takes about as
# long as writing so many numbers.
CALL = 20_000
# Ten minutes on one idle core; DenseNet-121 needs 8e8.
LIMIT = 2e11


class TooMuchWork(BaseException):
    """The bound is reached; no ``Exception``, which a backbone may catch."""


class Work:
    """Counts what the modules of a network do in all passes of a search.

    The count depends on the network and on the size of the image only, so a
    search that ends on one machine ends on every machine, however busy.

    Args:
        limit: Elements.

    Attributes:
        done: Elements that the modules have written so far, and 20,000 for
            every call.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self.done = 0

    def add(self, output: object) -> None:
        """Count one call of a module.

        Raises:
            TooMuchWork: The bound is reached.
        """
        self.done += CALL
        if isinstance(output, Tensor):
            self.done += output.numel()
        if self.done > self._limit:
            raise TooMuchWork


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch's operators, then as many as before.

    A pass is thousands of small operations: threads that wait for each other
    at the end of each make it tens of times slower on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
