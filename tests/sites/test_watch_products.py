"""Observed tensor products, compared with torch's FLOP counter."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fgc_mm.sites.watch_products import watch_products

MODES = torch.enable_grad, torch.no_grad, torch.inference_mode


def ours(run):
    found = []
    with watch_products(found.append):
        run()
    return found


def by_torch(run):
    """Torch's count, with fused kernels disabled."""
    counter = FlopCounterMode(display=False)
    unfused = torch.backends.mkldnn.flags(enabled=False)
    with sdpa_kernel(SDPBackend.MATH), unfused, torch.enable_grad(), counter:
        run()
    return counter.get_total_flops() // 2


def attention(kind, **options):
    torch.manual_seed(0)
    layer = kind(8, 2, batch_first=True, **options).eval()
    x = torch.randn(1, 5, 8)
    if kind is nn.MultiheadAttention:
        return lambda: layer(x, x, x)
    return lambda: layer(x)


def convolution(kind, shape, **options):
    return lambda: kind(4, 6, 3, **options)(torch.randn(*shape))


def heads(causal):
    q, k, v = (torch.randn(2, 3, n, d) for n, d in ((5, 4), (7, 4), (7, 4)))
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal)


RUNS = {
    'MultiheadAttention': attention(nn.MultiheadAttention),
    'TransformerEncoderLayer': attention(
        nn.TransformerEncoderLayer, dim_feedforward=16
    ),
    'scaled_dot_product_attention': heads(False),
    'causal attention': heads(True),
    'LSTM': attention(
        lambda *_, **options: nn.LSTM(8, 6, 2, bidirectional=True, **options)
    ),
    'Conv1d, no batch': convolution(nn.Conv1d, (4, 9)),
    'Conv2d, groups': convolution(nn.Conv2d, (1, 4, 7, 5), groups=2),
    'Conv3d': convolution(nn.Conv3d, (1, 4, 5, 5, 5)),
    'ConvTranspose2d': convolution(
        nn.ConvTranspose2d, (1, 4, 5, 5), stride=2, groups=2
    ),
    'linear, one row': lambda: F.linear(torch.randn(8), torch.randn(3, 8)),
    'einsum': lambda: torch.einsum(
        'bij,bkj->bik', torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    ),
    'baddbmm': lambda: torch.baddbmm(
        torch.zeros(1), torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    ),
}


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('name', RUNS)
def test_as_torch_counts_in_every_mode(name, mode):
    with mode():
        found = ours(RUNS[name])
    assert sum(x.macs for x in found) == by_torch(RUNS[name]) > 0


def test_a_product_has_its_channels_and_its_weight():
    x, weight = torch.randn(1, 4, 8, 8), nn.Parameter(torch.randn(6, 2, 3, 3))
    (found,) = ours(lambda: F.conv2d(x, weight, stride=2, groups=2))
    assert (found.in_channels, found.out_channels, found.groups) == (4, 6, 2)
    assert found.unit == 3 * 3 * 3 * 3 and found.factors[1] is weight


def test_products_on_the_meta_device_are_left_out():
    layer = nn.Linear(4, 4, device='meta')
    assert ours(lambda: layer(torch.empty(1, 4, device='meta'))) == []


def test_fused_attention_is_restored():
    with pytest.raises(RuntimeError, match='mine'), watch_products(print):
        raise RuntimeError('mine')
    assert torch.backends.mha.get_fastpath_enabled()
