"""A limit on the computation of a search, in elements instead of time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Cost of a module call in elements: on one core it takes about as long as
# writing this many elements.
CALL = 20_000
# Ten minutes on one idle core; DenseNet-121 needs 8e8.
LIMIT = 2e11


class TooMuchWork(BaseException):
    """The limit is reached; not an ``Exception``, which may be caught."""


class WorkLimit:
    """Counts the elements that a network computes in all passes of a search.

    The count depends only on the network and the image size, so a search
    that ends on one machine ends on every machine.

    Args:
        limit: Maximum number of elements.

    Attributes:
        done: Elements written by the modules so far, plus 20,000 per call.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self.done = 0

    def add(self, output: object) -> None:
        """Count one call of a module.

        Raises:
            TooMuchWork: The limit is reached.
        """
        self.done += CALL
        if isinstance(output, Tensor):
            self.done += output.numel()
        if self.done > self._limit:
            raise TooMuchWork


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one intra-op thread of torch; restore the number afterwards.

    A pass is thousands of small operations: waiting for other threads after
    each makes it tens of times slower on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
