import copy
import math

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional import binary_concrete

TEMPERATURE = 2 / 3


def naive(logit, u, temperature):
    """One gate: hard value and the slope of the soft one."""
    y = (logit + math.log(u) - math.log(1 - u)) / temperature
    s = 1 / (1 + math.exp(-y))
    return float(y > 0), s * (1 - s) / temperature


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('temperature', [TEMPERATURE, 1.7])
def test_against_loop(dtype, temperature):
    torch.manual_seed(0)
    logits = torch.randn(7, 5, dtype=dtype, requires_grad=True)
    noise = torch.rand(7, 5).clamp(0.01, 0.99)
    weight = torch.randn(7, 5, dtype=dtype)
    mask = binary_concrete(logits, temperature, noise)
    (mask * weight).sum().backward()
    for a, u, hard, w, grad in zip(
        *(
            x.detach().flatten().tolist()
            for x in (logits, noise, mask, weight, logits.grad)
        ),
        strict=True,
    ):
        want, slope = naive(a, u, temperature)
        assert hard == want
        assert math.isclose(grad, w * slope, rel_tol=1e-4)


def test_gradient_is_autograd_of_the_soft_sample():
    torch.manual_seed(1)
    logits = torch.randn(40, dtype=torch.float64, requires_grad=True)
    noise = torch.rand(40, dtype=torch.float64)
    binary_concrete(logits, TEMPERATURE, noise).sum().backward()
    soft = ((logits + noise.logit()) / TEMPERATURE).sigmoid()
    (want,) = torch.autograd.grad(soft.sum(), logits)
    torch.testing.assert_close(logits.grad, want)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_types(dtype):
    logits = torch.tensor([-1.0, 0.25, 3.0], dtype=dtype, requires_grad=True)
    noise = torch.tensor([0.5, 0.5, 0.001])
    mask = binary_concrete(logits, TEMPERATURE, noise)
    assert mask.dtype == dtype and mask.tolist() == [0.0, 1.0, 0.0]
    mask.sum().backward()
    want = [
        naive(a, float(u), TEMPERATURE)[1]
        for a, u in zip([-1.0, 0.25, 3.0], noise, strict=True)
    ]
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(
        logits.grad.float(), torch.tensor(want), rtol=1e-2, atol=1e-4
    )


def test_open_with_the_probability_of_the_gate():
    torch.manual_seed(0)
    logits = torch.tensor([-2.0, 0.0, 1.5]).expand(40000, 3)
    rate = binary_concrete(logits, TEMPERATURE).mean(0)
    assert (rate - logits[0].sigmoid()).abs().max() < 0.01


def test_noise_at_its_ends_gives_finite_gradients(monkeypatch):
    for end in (0.0, 1.0):
        monkeypatch.setattr(
            torch.Tensor, 'uniform_', lambda x, end=end: x.fill_(end)
        )
        logits = torch.zeros(3, requires_grad=True)
        mask = binary_concrete(logits, TEMPERATURE)
        mask.sum().backward()
        assert mask.tolist() == [end] * 3
        assert (logits.grad > 0).all() and logits.grad.isfinite().all()


def test_extreme_logits():
    logits = torch.tensor([-1e4, 1e4, 0.0], requires_grad=True)
    mask = binary_concrete(logits, 1e-3, torch.tensor([0.9, 0.1, 0.5]))
    mask.sum().backward()
    assert mask.tolist() == [0.0, 1.0, 0.0]
    assert logits.grad.isfinite().all() and logits.grad[0] == 0


def test_under_autocast_and_deepcopy():
    class Gate(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)

        def forward(self, x):
            return binary_concrete(self.linear(x), TEMPERATURE)

    gate = copy.deepcopy(Gate())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mask = gate(torch.randn(8, 4))
    assert mask.dtype == torch.bfloat16
    mask.float().sum().backward()
    assert gate.linear.weight.grad.abs().sum() > 0


def test_same_seed_same_mask_whatever_the_dtype():
    masks = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(3)
        logits = torch.zeros(64, dtype=dtype)
        masks.append(binary_concrete(logits, TEMPERATURE).float())
    assert torch.equal(*masks) and 10 < masks[0].sum() < 54


@pytest.mark.parametrize('temperature', [0.0, -1.0, math.nan])
def test_temperature_error(temperature):
    with pytest.raises(FGCError, match='is not positive, so no soft'):
        binary_concrete(torch.zeros(2), temperature)


def test_noise_shape_error():
    with pytest.raises(FGCError, match=r'noise has shape \(3,\) and logits'):
        binary_concrete(torch.zeros(2), 1.0, torch.rand(3))


def test_integer_logits_error():
    with pytest.raises(FGCError, match=r'logits are torch.int64'):
        binary_concrete(torch.zeros(2, dtype=torch.int64), 1.0)
