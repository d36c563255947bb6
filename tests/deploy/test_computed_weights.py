"""Convs that compute their weight, and norms without numbers."""

import pytest
import torch
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import (
    parametrizations,
    prune,
    spectral_norm,
    weight_norm,
)

from fgc_mm.deploy import (
    compact,
    firing_statistics,
    gathered,
    set_keep_ratio,
)
from fgc_mm.deploy.comparing import largest_gap
from fgc_mm.registry import MODELS as OWN_MODELS
from fgc_mm.sites.copying import copy_network


class StandardisedConv(nn.Conv2d):
    """Weight standardisation with a gain, as NFNet's convs have it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x):
        weight = self.weight
        mean = weight.mean((1, 2, 3), keepdim=True)
        std = weight.std((1, 2, 3), keepdim=True)
        weight = self.gain * (weight - mean) / std
        return self._conv_forward(x, weight, self.bias)


def pruned(conv):
    """Half of the weights are masked."""
    return prune.random_unstructured(conv, 'weight', 0.5)


KINDS = {
    'plain': lambda conv: conv,
    'weight_norm': weight_norm,
    'spectral_norm': spectral_norm,
    'prune': pruned,
    'parametrized weight_norm': parametrizations.weight_norm,
    'parametrized spectral_norm': parametrizations.spectral_norm,
}


@MODELS.register_module(name='DerivedWeights', force=True)
class DerivedWeights(BaseBackbone):
    """Two blocks of two convs each.

    Args:
        kind: Of :data:`KINDS`, or ``'standardised'``.
        norm: Between the convs of a block; its options.
    """

    def __init__(self, kind='plain', norm=None):
        super().__init__()
        conv = StandardisedConv if kind == 'standardised' else nn.Conv2d
        derive = KINDS.get(kind, KINDS['plain'])
        widths = [(3, 8), (8, 8), (8, 12), (12, 8)]
        self.convs = nn.ModuleList(
            derive(conv(reads, writes, 3, padding=1))
            for reads, writes in widths
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(writes, **(norm or {})) for _, writes in widths
        )

    def forward(self, x):
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            x = norm(conv(x))
            x = F.max_pool2d(x.relu(), 2) if index % 2 else x.relu()
        return (x,)

    def train(self, mode=True):  # upstream's returns nothing
        super().train(mode)
        return self


# of the kinds above, those whose weights can lose a row or a column
CUT = ('plain', 'prune')


@pytest.mark.parametrize('kind', [*KINDS, 'standardised'])
@pytest.mark.filterwarnings('ignore:.*weight_norm.*:FutureWarning')
@torch.no_grad()
def test_computed_weights_keep_their_values(kind, gated, pictures):
    network, cfg = gated(dict(type='DerivedWeights', kind=kind))
    images = pictures(32)
    done = compact(network, firing_statistics(network, [images]), cfg, images)
    kept = [len(entry.kept) for entry in done.channel_map.sites.values()]
    assert (sum(kept) < 8 + 8 + 12) == (kind in CUT)
    assert (done.refused == {}) == (kind in CUT)
    assert largest_gap(network(images), done.backbone(images)) < 1e-4
    if kind in CUT:  # built and loaded as from files
        again = OWN_MODELS.build(
            dict(cfg, type='fgc_mm.CompactBackbone',
                 channel_map=done.channel_map)
        ).eval()  # fmt: skip
        again.load_state_dict(done.state_dict)
        assert largest_gap(network(images), again(images)) < 1e-4


@pytest.mark.parametrize('kind', [*KINDS, 'standardised'])
@pytest.mark.filterwarnings('ignore:.*weight_norm.*:FutureWarning')
def test_gathering_uses_the_weight_that_is_used(kind, gated, pictures):
    network, _ = gated(dict(type='DerivedWeights', kind=kind))
    images = pictures(32)
    network(images)[0].sum().backward()  # weights belong to a graph
    with torch.no_grad():
        small, plan = gathered(network, images[:1])
        # standardised over all inputs, closed ones too
        assert set(plan.values()) == {
            'masked' if kind == 'standardised' else 'both'
        }
        for image in images.split(1):
            assert largest_gap(network(image), small(image)) < 1e-4


@pytest.mark.parametrize('kind', ['weight_norm', 'spectral_norm', 'prune'])
@pytest.mark.filterwarnings('ignore:.*weight_norm.*:FutureWarning')
def test_a_copy_of_weights_that_belong_to_a_graph(kind, pictures):
    network = DerivedWeights(kind).eval()
    wanted = network(pictures(8))[0]
    wanted.sum().backward()
    again = copy_network(network)
    assert torch.equal(again(pictures(8))[0], wanted)
    assert not {p.data_ptr() for p in again.parameters()} & {
        p.data_ptr() for p in network.parameters()
    }


NORMS = [
    dict(affine=False),
    dict(track_running_stats=False),
    dict(affine=False, track_running_stats=False),
]


@pytest.mark.parametrize('norm', NORMS, ids=str)
@torch.no_grad()
def test_norms_without_numbers(norm, gated, pictures):
    network, cfg = gated(dict(type='DerivedWeights', norm=norm))
    images = pictures(32, 16)
    done = compact(network, firing_statistics(network, [images]), cfg, images)
    assert done.refused == {}
    assert largest_gap(network(images), done.backbone(images)) < 1e-4
    small, plan = gathered(network, images[:1])
    assert set(plan.values()) <= {'both', 'consumers'}
    for image in images.split(1):
        assert largest_gap(network(image), small(image)) < 1e-4
    for gate in network.gates.values():
        gate.expand.bias.zero_()
    for stats in set_keep_ratio(network, images, 0.5, fresh=True):
        assert float(stats.rate.mean()) == pytest.approx(0.5, abs=0.02)


@torch.no_grad()
def test_a_whole_checkpoint_loses_channels_without_a_weight(gated, pictures):
    """Where the map names a norm of statistics only, or a masked weight."""
    for kind, norm in (('plain', NORMS[0]), ('prune', None)):
        config = dict(type='DerivedWeights', kind=kind, norm=norm)
        network, cfg = gated(config)
        images = pictures(32)
        firing = firing_statistics(network, [images])
        done = compact(network, firing, cfg, images)
        whole = network.backbone.state_dict()
        again = done.channel_map.shrink(DerivedWeights(kind, norm)).eval()
        again.load_state_dict(whole)
        wanted = done.backbone.backbone(images)
        assert largest_gap(wanted, again(images)) == 0
