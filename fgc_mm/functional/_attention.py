"""Attention over a bank that also returns the log-sum-exp.

``softmax(scale * queries @ bank.T) @ bank`` is the gradient of
``logsumexp(scale * queries @ bank.T) / scale``: one pass gives both.
"""

from collections.abc import Callable
from math import gcd

import torch
from torch import Tensor

from fgc_mm.functional._chunks import is_cpu, sizes_for

# Minimum number of rows per head: the inner block of the kernels.
_MIN_HEAD = 512

# Result for some rows: out (H, N, C) and lse (H, N).
Piece = tuple[Tensor, Tensor]
Kernel = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


# Private operators: compiled, torch's public flex_attention returns no
# log-sum-exp on a CPU (torch 2.11); uncompiled it takes 12 times as long.
def _cpu_kernel(q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return op(q, k, k, scale=scale)


def _cuda_kernel(q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    op = torch.ops.aten._scaled_dot_product_efficient_attention
    out, lse, *_ = op(q, k, k, None, True, scale=scale)
    # The kernel pads the log-sum-exp to a multiple of 32 queries.
    return out, lse[..., : q.shape[2]]


def _find_kernel(queries: Tensor) -> Kernel | None:
    """The fused kernel for this device and dtype; None: use dense chunks."""
    kind, aten = queries.device.type, torch.ops.aten
    name = '_scaled_dot_product_flash_attention_for_cpu'
    if kind == 'cpu' and hasattr(aten, name):
        return _cpu_kernel
    # ROCm has another kernel; CUDA's has no double precision. The meta device
    # is treated like CUDA.
    nvidia = kind == 'meta' or (kind == 'cuda' and torch.version.hip is None)
    if nvidia and queries.dtype == torch.float32:
        return _cuda_kernel
    return None


def _count_heads(queries: Tensor, rows: int) -> int:
    """Number of heads into which the rows are split, to use all cores.

    The kernels are parallel over heads and blocks of queries only.
    """
    if not is_cpu(queries):
        heads = -(-2 * _processors(queries) // -(-len(queries) // 64))
        heads = _divisor(rows, heads)
    else:
        workers = torch.get_num_threads()
        block = 64 if len(queries) >= 192 else 32
        heads = workers // gcd(workers, -(-len(queries) // block))
    return max(1, min(heads, rows // _MIN_HEAD))


def _processors(queries: Tensor) -> int:
    if not queries.is_cuda:
        return 132  # of the meta device: those of an H100
    unit = torch.cuda.get_device_properties(queries.device)
    return unit.multi_processor_count


def _divisor(rows: int, heads: int) -> int:
    """The largest divisor of the rows from heads / 2 to heads, else heads."""
    near = range(heads, max(heads // 2, 1) - 1, -1)
    return next((n for n in near if rows % n == 0), heads)


def merge(out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """Merge parts exactly: out (H, N, C) and lse (H, N) to (N, C), (N,)."""
    total = lse.logsumexp(0)
    weight = (lse - total).exp_().unsqueeze(-1)
    return (out * weight).sum(0), total


def _attend_fused(
    kernel: Kernel, queries: Tensor, rows: Tensor, scale: float
) -> list[Piece]:
    heads = _count_heads(queries, len(rows))
    even = len(rows) // heads * heads
    keys = rows[:even].unflatten(0, (1, heads, -1))
    repeated = queries.expand(1, heads, *queries.shape)
    out, lse = kernel(repeated, keys, scale)
    pieces = [(out[0], lse[0])]
    if even < len(rows):
        pieces += _attend_dense(queries, rows[even:], scale)
    return pieces


def _attend_dense(queries: Tensor, rows: Tensor, scale: float) -> list[Piece]:
    logits = (queries * scale) @ rows.T
    top = logits.amax(1, keepdim=True)
    share = logits.sub_(top).exp_()
    total = share.sum(1, keepdim=True)
    out, lse = (share @ rows).div_(total), total.log_().add_(top)
    return [(out.unsqueeze(0), lse.T)]


def _pad(x: Tensor, multiple: int) -> Tensor:
    short = -x.shape[1] % multiple
    return torch.nn.functional.pad(x, (0, short)) if short else x


def attend(
    queries: Tensor, bank: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Softmax-weighted mean of the bank's rows, and the log-sum-exp.

    Args:
        queries: (N, C), float32 or float64: the dtype of the computation.
        bank: (D, C), any floating dtype; cast in parts if it differs.
        scale: factor of each inner product.

    Returns:
        out (N, C) and lse (N,); at most N x 2048 scores (64 M on an
        accelerator) exist at once.
    """
    kernel = _find_kernel(queries)
    whole = bank.dtype == queries.dtype and bank.is_contiguous()
    # CUDA's kernel reads four float32 at a time; zeros change no product.
    channels, multiple = queries.shape[1], 1 if is_cpu(queries) else 4
    whole = whole and channels % multiple == 0
    size = _part_size(queries, bank, whole, kernel is not None)
    queries = _pad(queries.contiguous(), multiple)
    pieces: list[Piece] = []
    for part in bank.split(size):
        rows = _pad(part.to(queries.dtype), multiple).contiguous()
        if kernel is None:
            pieces += _attend_dense(queries, rows, scale)
        else:
            pieces += _attend_fused(kernel, queries, rows, scale)
        if is_cpu(queries):  # parts are small, so merge them at once
            pieces = [_one_piece(pieces)]
    out, lse = _one_piece(pieces)
    return out[0, :, :channels], lse[0]


def _one_piece(pieces: list[Piece]) -> Piece:
    """Merge all pieces; H becomes 1."""
    out, lse = pieces[0]
    if len(pieces) > 1:
        out, lse = map(torch.cat, zip(*pieces, strict=True))
    if len(out) == 1:
        return out, lse
    out, lse = merge(out, lse)
    return out.unsqueeze(0), lse.unsqueeze(0)


def _part_size(queries: Tensor, bank: Tensor, whole: bool, fused: bool) -> int:
    """Number of rows of the bank that are processed at a time."""
    count, channels = queries.shape
    sizes = sizes_for(queries)
    if is_cpu(queries):
        size = max(sizes.attention_rows, sizes.attention_cast // channels)
        size = len(bank) if whole else size
        return size if fused else sizes.attention_rows
    if not fused:
        return max(1, sizes.attention_scores // count)
    part = sizes.attention_part
    elements = part if whole else min(sizes.attention_cast, part)
    size = max(1, elements // (channels + 3))  # padded to a multiple of 4
    rows = sizes.attention_rows
    return size // rows * rows or size  # a multiple divides into heads
