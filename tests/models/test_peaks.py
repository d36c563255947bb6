"""FTWT's scores are maxima of maps wherever a consumer reads maps."""

import pytest
import torch
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.functional import mass_mask
from fgc_mm.functional.mask_targets import channel_scores
from fgc_mm.losses import GateBatch, MaskPredictionLoss
from fgc_mm.models import GatedBackbone


class Net(nn.Module):
    """A conv whose channels a subclass reads."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)

    def own(self, x):
        """The first conv's own output."""
        return self.norm(self.first(x)).relu()


class SqueezeExcite(Net):
    """The layer that squeezes reads the means, and runs first."""

    def __init__(self):
        super().__init__()
        self.squeeze = nn.Conv2d(16, 4, 1)
        self.excite = nn.Conv2d(4, 16, 1)
        self.last = nn.Conv2d(16, 8, 3)

    def forward(self, x):
        x = self.own(x)
        means = x.mean((2, 3), keepdim=True)
        return self.last(x * self.excite(self.squeeze(means).relu()).sigmoid())


class Halves(Net):
    """Two layers that each read half of the channels."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(8, 8, 3)
        self.right = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        left, right = self.own(x).split(8, dim=1)
        return torch.cat([self.left(left), self.right(right)], dim=1)


class Plain(Net):
    """One layer that reads everything."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(16, 8, 3)

    def forward(self, x):
        return self.last(self.own(x))


def made(network):
    torch.manual_seed(0)
    gate = dict(type='fgc_mm.FTWTGate')
    return GatedBackbone(network(), gate, sites=['first']).eval()


@pytest.fixture
def images():
    return torch.randn(8, 3, 6, 6, generator=torch.manual_seed(1))


@pytest.mark.parametrize('network', [Plain, Halves])
def test_peaks_are_those_of_the_layers_own_output(network, images):
    gated = made(network)
    _, (record,) = gated.forward_gated(images, keep_activation=True)
    own = gated.backbone.own(images)
    assert torch.equal(record.peaks, channel_scores(own))
    assert not record.peaks.requires_grad
    # coupling's features are the means, as before
    means = own.mean((2, 3))
    pooled = record.activation.flatten(2).mean(2) if network is Plain else None
    torch.testing.assert_close(
        record.activation if pooled is None else pooled, means
    )


def test_maps_behind_a_squeeze_excite_come_before_its_means(images):
    gated = made(SqueezeExcite)
    seen = []
    gated.backbone.last.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].detach()), prepend=True
    )
    _, (record,) = gated.forward_gated(images, keep_activation=True)
    assert torch.equal(record.peaks, channel_scores(seen[0]))
    means = gated.backbone.own(images).mean((2, 3), keepdim=True)
    torch.testing.assert_close(record.activation, means)


@pytest.mark.parametrize('network', [SqueezeExcite, Halves])
def test_targets_are_computed_from_peaks(network, images):
    gated = made(network).train()
    _, (record,) = gated.forward_gated(images)
    loss = MaskPredictionLoss(0.8)(GateBatch([record]))
    want = nn.functional.binary_cross_entropy_with_logits(
        record.logits, mass_mask(record.peaks, 0.8), reduction='sum'
    )
    assert loss.item() == pytest.approx(want.item() / len(images), rel=1e-5)


def test_peaks_need_an_activation(images):
    _, (record,) = made(Plain).forward_gated(images)
    with pytest.raises(FGCError, match='keep_activation=True'):
        assert record.peaks
