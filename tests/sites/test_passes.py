"""What a search tries, and at which places it looks."""

import pytest
import torch
from torch import nn

from fgc_mm.models import CifarResNet
from fgc_mm.sites import find_sites
from fgc_mm.sites.cut import CutNetwork
from fgc_mm.sites.trace import BrokenProbe, Place, Trace

IMAGES = torch.zeros(1, 3, 8, 8)


@pytest.fixture
def passes(monkeypatch):
    """For every pass in which sources change: how many of them do."""
    counts, changed = [], Trace.changed

    def counted(self, change, **options):
        counts.append(len(change))
        return changed(self, change, **options)

    monkeypatch.setattr(Trace, 'changed', counted)
    return counts


def test_channels_are_told_apart_for_layers_that_may_be_gated(passes):
    """Not for layers before a sum, whatever their halves are."""
    assert len(find_sites(CifarResNet(base_channels=4))) == 9
    # the image, the layers one by one, and those that meet all together
    single, together = 1 + 19, 1
    # each of the 4 bits of 16 channels, and its opposite
    assert len(passes) == single + together + 2 * 4


class Pair(nn.Sequential):
    """Two convs, of which the second may read a map of another size."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
        self.cropped = False

    def forward(self, x):
        x = self[0](x)
        return self[1](x[..., 1:] if self.cropped else x)


def test_other_places_are_not_compared():
    with CutNetwork(Pair()) as cut:
        trace = Trace(cut, IMAGES)
        change = {'0': torch.ones(4).bool(), '1': torch.ones(5).bool()}
        read, end = Place('input', '1'), Place('end', '0')
        both = trace.changed(change)
        one = trace.changed(change, only={end})
    assert both[read].all() and both[end].all()
    assert one[end].all() and not one[read].any()


def test_a_map_of_another_size_breaks_the_probe():
    with CutNetwork(Pair()) as cut:
        trace = Trace(cut, IMAGES)
        cut.backbone.cropped = True
        with pytest.raises(BrokenProbe, match='has the shape'):
            trace.changed({'0': torch.ones(4).bool()})


class Divided(nn.Sequential):
    """Its second conv reads NaN in the first channel, whatever comes."""

    def forward(self, x):
        x = self[0](x)
        return self[1](torch.cat([x[:, :1] * float('nan'), x[:, 1:]], 1))


def test_what_is_always_nan_has_not_changed():
    network = Divided(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    with CutNetwork(network) as cut:
        trace = Trace(cut, IMAGES)
        flags = trace.changed({'0': torch.ones(4).bool()})
    seen = flags[Place('input', '1')].tolist()
    assert seen == [False, True, True, True]
