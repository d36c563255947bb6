"""The product with a mask against the plain product of autograd."""

import pytest
import torch

from fgc_mm.functional import mask_channels, spread_mask

SHAPES = [(3, 4, 5, 6), (2, 3, 7), (4, 3), (2, 3, 1, 1), (0, 3, 2, 2),
          (2, 3, 0, 2)]  # fmt: skip


def naive(activation, mask):
    shape = (*mask.shape, *[1] * (activation.dim() - 2))
    return activation * mask.to(activation.dtype).view(shape)


def leaves(shape, dtype, mask_dtype=None):
    torch.manual_seed(0)
    activation = torch.randn(shape, dtype=dtype, requires_grad=True)
    mask = torch.randn(shape[:2], dtype=mask_dtype or dtype)
    mask[mask < 0] = 0
    return activation, mask.requires_grad_()


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_forward_and_gradients_are_those_of_the_plain_product(shape, dtype):
    inputs, same = leaves(shape, dtype), leaves(shape, dtype)
    out, want = mask_channels(*inputs), naive(*same)
    assert torch.equal(out, want)
    weight = torch.randn_like(want)
    (out * weight).sum().backward()
    (want * weight).sum().backward()
    for one, other in zip(inputs, same, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize('shape', SHAPES[:4])
def test_gradients_against_finite_differences(shape):
    torch.autograd.gradcheck(mask_channels, leaves(shape, torch.float64))


def test_a_half_activation_takes_a_float_mask():
    inputs = leaves((8, 4, 9, 9), torch.bfloat16, torch.float32)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    out = mask_channels(*inputs)
    assert out.dtype == torch.bfloat16
    weight = torch.randn_like(out)
    out.backward(weight)
    naive(*exact).backward(weight.double())
    assert inputs[1].grad.dtype == torch.float32
    for one, other in zip(inputs, exact, strict=True):
        torch.testing.assert_close(
            one.grad.double(), other.grad, atol=0.1, rtol=0.02
        )


def test_channels_last_stays_channels_last():
    plain = leaves((3, 4, 5, 6), torch.float32)
    last = plain[0].detach().to(memory_format=torch.channels_last)
    last.requires_grad_()
    mask = plain[1].detach().clone().requires_grad_()
    weight = torch.randn(3, 4, 5, 6)
    out = mask_channels(last, mask)
    assert out.is_contiguous(memory_format=torch.channels_last)
    out.backward(weight)
    naive(*plain).backward(weight)
    torch.testing.assert_close(last.grad, plain[0].grad)
    torch.testing.assert_close(mask.grad, plain[1].grad)


def test_a_gradient_that_is_a_broadcast_view_is_read_and_not_written():
    activation, mask = leaves((3, 4, 5, 6), torch.float32)
    grad = torch.ones(3, 4, 1, 1)
    mask_channels(activation, mask).backward(grad.expand(3, 4, 5, 6))
    assert (grad == 1).all()
    assert torch.equal(
        activation.grad, mask.detach()[..., None, None].expand(3, 4, 5, 6)
    )


def test_ones_change_no_bit():
    activation = torch.tensor([[-0.0, 1e-45, torch.inf, -torch.inf]])
    out = mask_channels(activation, torch.ones(1, 4))
    assert torch.equal(out.view(torch.int32), activation.view(torch.int32))


def test_without_gradients_nothing_is_recorded():
    activation, mask = leaves((2, 3, 4, 4), torch.float32)
    with torch.no_grad():
        out = mask_channels(activation, mask)
    assert out.grad_fn is None and torch.equal(out, naive(activation, mask))


def test_a_constant_mask_lets_the_gradient_pass():
    activation, mask = leaves((2, 3, 4, 4), torch.float32)
    mask_channels(activation, mask.detach()).sum().backward()
    want = mask.detach()[..., None, None].expand(2, 3, 4, 4)
    assert torch.equal(activation.grad, want)


@pytest.mark.parametrize('positions', [[2, -1, 0, -1, 0], [1, 2, 0], [-1]])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bool, torch.int64])
def test_a_mask_is_spread_as_by_a_loop(positions, dtype):
    mask = torch.tensor([[0, 1, 0], [1, 0, 2]]).to(dtype)
    expected = [
        [1 if at < 0 else row[at].item() for at in positions] for row in mask
    ]
    for given in (positions, torch.tensor(positions)):
        spread = spread_mask(mask, given)
        assert spread.dtype == dtype
        assert spread.tolist() == expected


@pytest.mark.parametrize('positions', [(2, -1, 0), [2, -1, 0]])
def test_positions_are_on_the_device_of_the_mask(positions, one_device):
    mask = torch.ones(2, 3, device='meta')
    with one_device:
        spread = spread_mask(mask, positions)
    assert spread.shape == (2, 3) and spread.device.type == 'meta'


def test_positions_are_copied_to_a_device_once(monkeypatch):
    mask, positions = torch.ones(2, 3, device='meta'), (1, 0, -1, -1, 2, 2)
    spread_mask(mask, positions)
    for maker in ('tensor', 'as_tensor'):
        monkeypatch.setattr(torch, maker, None)
    assert spread_mask(mask, positions).shape == (2, 6)


def test_positions_first_used_in_inference_mode_can_be_trained_with():
    mask, positions = torch.ones(2, 3, requires_grad=True), (2, 2, -1, 1)
    with torch.inference_mode():
        spread_mask(mask, positions)
    spread_mask(mask, positions).sum().backward()
    assert mask.grad.tolist() == [[0, 1, 2]] * 2


def windows(maps):
    """Sliding windows: every entry in the middle is in three of them."""
    return maps.unfold(2, 3, 1)


@pytest.mark.parametrize('view', [
    windows, lambda maps: maps[:, :, :1].expand(2, 4, 5),
    lambda maps: maps, lambda maps: maps.transpose(0, 2)[:2].transpose(1, 2),
])  # fmt: skip
@torch.no_grad()
def test_memory_that_entries_share_is_multiplied_once(view):
    maps = torch.rand(2, 4, 6) + 1
    mask = torch.tensor([[0.5, 2.0, 0.0, 3.0], [2.0, 1.0, 4.0, 0.5]])
    activation = view(maps)
    channels = mask[:, : activation.shape[1]]
    wanted = activation.clone()
    for n in range(2):
        for c in range(activation.shape[1]):
            wanted[n, c] *= channels[n, c]
    assert torch.equal(mask_channels(activation, channels, True), wanted)
