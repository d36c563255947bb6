"""Masked channels under torch.compile, in both memory formats."""

import pytest
import torch

from fgc_mm.functional import mask_channels


@pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last]
)
def test_it_is_one_graph_with_the_same_gradients(layout):
    """Dynamo breaks a graph at an output that is not contiguous."""
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 4, 4).to(memory_format=layout)
    mask, weight = torch.rand(2, 3), torch.randn(2, 3, 4, 4)

    def gradients(function):
        inputs = maps.clone().requires_grad_(), mask.clone().requires_grad_()
        (function(*inputs) * weight).sum().backward()
        return [x.grad for x in inputs]

    torch._dynamo.reset()
    compiled = torch.compile(mask_channels, backend='eager', fullgraph=True)
    for one, other in zip(gradients(mask_channels), gradients(compiled)):
        assert torch.equal(one, other)


@torch.no_grad()
def test_in_place_it_is_one_graph():
    torch._dynamo.reset()
    compiled = torch.compile(mask_channels, fullgraph=True, backend='eager')
    maps, mask = torch.rand(2, 3, 4, 4), torch.tensor([[1.0, 0, 2]] * 2)
    wanted = mask_channels(maps, mask)
    assert torch.equal(compiled(maps, mask, True), wanted)
