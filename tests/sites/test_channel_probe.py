"""Number of probing passes, and which probe points are compared."""

import pytest
import torch
from torch import nn

from fgc_mm.models import CifarResNet
from fgc_mm.sites import find_sites
from fgc_mm.sites.channel_probe import BrokenProbe, ChannelProbe, ProbePoint
from fgc_mm.sites.probed_backbone import ProbedBackbone

IMAGES = torch.zeros(1, 3, 8, 8)


@pytest.fixture
def passes(monkeypatch):
    """Number of changed sources in every pass."""
    counts, original = [], ChannelProbe.propagate

    def counted(self, change, **options):
        counts.append(len(change))
        return original(self, change, **options)

    monkeypatch.setattr(ChannelProbe, 'propagate', counted)
    return counts


def test_channels_are_identified_for_layers_that_may_be_gated(passes):
    """Not for layers before a sum."""
    assert len(find_sites(CifarResNet(base_channels=4))) == 9
    # the image, the layers one by one, and those that meet all together
    single, together = 1 + 19, 1
    # each of the 4 bits of 16 channels, and its opposite
    # two rounds with each half of the channels, where all values are large
    large = 2 * 2
    assert len(passes) == single + together + 2 * 4 + large


class Pair(nn.Sequential):
    """Two convs, of which the second may read a map of another size."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
        self.cropped = False

    def forward(self, x):
        x = self[0](x)
        return self[1](x[..., 1:] if self.cropped else x)


def test_other_points_are_not_compared():
    with ProbedBackbone(Pair()) as probed:
        probe = ChannelProbe(probed, IMAGES)
        change = {'0': torch.ones(4).bool(), '1': torch.ones(5).bool()}
        read, end = ProbePoint('input', '1'), ProbePoint('end', '0')
        both = probe.propagate(change)
        one = probe.propagate(change, only={end})
    assert both[read].all() and both[end].all()
    assert one[end].all() and not one[read].any()


def test_a_map_of_another_size_raises_an_error():
    with ProbedBackbone(Pair()) as probed:
        probe = ChannelProbe(probed, IMAGES)
        probed.backbone.cropped = True
        with pytest.raises(BrokenProbe, match='has shape'):
            probe.propagate({'0': torch.ones(4).bool()})


class Divided(nn.Sequential):
    """The first channel of its second conv's input is always NaN."""

    def forward(self, x):
        x = self[0](x)
        return self[1](torch.cat([x[:, :1] * float('nan'), x[:, 1:]], 1))


def test_constant_nan_is_not_a_change():
    network = Divided(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    with ProbedBackbone(network) as probed:
        probe = ChannelProbe(probed, IMAGES)
        flags = probe.propagate({'0': torch.ones(4).bool()})
    seen = flags[ProbePoint('input', '1')].tolist()
    assert seen == [False, True, True, True]
