"""Chunk sizes of all functions of the package, by device.

On a CPU, chunks that fit into the cache are fastest. On an accelerator every
operation costs the host a launch of some microseconds, so chunks are large.
"""

from typing import NamedTuple

from torch import Tensor


class ChunkSizes(NamedTuple):
    """Numbers of elements, unless another unit is given.

    Attributes:
        search_scores: Scores of a nearest-neighbour search at a time.
        search_queries: Queries of a search at a time, in rows.
        search_whole: Maximum scores of a block of queries with all rows of a
            bank at once; used if a block then has at least 32 queries.
        search_rows: Bank rows multiplied at a time.
        gathered: Positives of the contrast at a time.
        attention_scores: Scores at a time without a fused kernel; on a CPU
            ``attention_rows`` limits them.
        attention_rows: Bank rows at a time without a fused kernel; on an
            accelerator the multiple to which parts are rounded.
        attention_cast: Bank elements at a time, if they are cast first.
        attention_part: Bank elements at a time, if they are not cast.
        checksum: Elements of a checksum at a time.
    """

    search_scores: int
    search_queries: int
    search_whole: int
    search_rows: int
    gathered: int
    attention_scores: int
    attention_rows: int
    attention_cast: int
    attention_part: int
    checksum: int = 2**20  # 8 MiB of int64


CPU = ChunkSizes(
    search_scores=2 * 2**20,  # 8 MiB of float32: the fastest of 4 to 32 MiB
    search_queries=1024,
    search_whole=4 * 2**20,  # 16 MiB
    search_rows=4096,  # the products of 64 queries: 1 MiB, in the cache
    gathered=4 * 2**20,  # 16 MiB
    attention_scores=2**62,  # no limit
    attention_rows=2048,  # more do not fit into the cache
    attention_cast=4 * 2**20,  # 16 MiB
    attention_part=2**62,  # no limit
)
ACCELERATOR = ChunkSizes(
    search_scores=64 * 2**20,  # 256 MiB
    search_queries=2**15,
    search_whole=0,  # search_scores is enough for whole banks
    search_rows=2**62,  # no limit
    gathered=64 * 2**20,  # 256 MiB
    attention_scores=64 * 2**20,
    attention_rows=2048,
    attention_cast=128 * 2**20,  # 512 MiB
    attention_part=2**30,  # CUDA's kernel indexes elements with 32 bits
)


def is_cpu(tensor: Tensor) -> bool:
    """Whether a tensor is on the CPU, where there is no launch overhead."""
    return tensor.device.type == 'cpu'


def sizes_for(tensor: Tensor) -> ChunkSizes:
    """The sizes for the device of a tensor."""
    return CPU if is_cpu(tensor) else ACCELERATOR
