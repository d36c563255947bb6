"""How often channels fire."""

import pytest
import torch

from fgc_mm.deploy import firing_statistics
from fgc_mm.errors import FGCError

SMALL = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)


@torch.no_grad()
def test_rates_are_counted_image_by_image(gated, pictures):
    network, _ = gated(SMALL)
    images = pictures(32)
    counts = [torch.zeros(site.channels) for site in network.sites]
    for image in images:
        for count, record in zip(
            counts, network.forward_gated(image[None])[1]
        ):
            for channel, factor in enumerate(record.mask[0]):
                count[channel] += float(factor != 0)
    for batches in (images.split(3), [images]):
        firing = firing_statistics(network.train(), batches)
        assert network.training  # as it was
        for stats, count, site in zip(firing, counts, network.sites):
            assert stats.site == site.name and stats.images == len(images)
            assert torch.equal(stats.rate, count.double() / len(images))
            assert torch.equal(stats.rate, stats.whole)


def test_never_and_always(gated, pictures):
    network, _ = gated(SMALL)
    for stats in firing_statistics(network, [pictures(32)]):
        assert torch.equal(stats.never(), stats.rate == 0)
        assert torch.equal(stats.always(), stats.rate == 1)
        assert torch.equal(stats.never(0.25), stats.rate <= 0.25)
        assert torch.equal(stats.always(0.25), stats.rate >= 0.75)
        assert stats.never().any() and stats.always().any()


def test_a_factor_is_not_as_it_is(gated, pictures):
    network, _ = gated(SMALL)
    for gate in network.gates.values():
        gate.register_forward_hook(
            lambda m, a, decision: decision._replace(mask=decision.mask * 0.5)
        )
    for stats in firing_statistics(network, [pictures(32)]):
        assert stats.rate.max() == 1 and stats.whole.max() == 0
        assert not stats.always().any()


def test_bad_input_is_one_sentence(gated):
    network, _ = gated(SMALL)
    with pytest.raises(FGCError, match='no image'):
        firing_statistics(network, [])
    with pytest.raises(FGCError, match='has no gates'):
        firing_statistics(network.backbone, [torch.zeros(1, 3, 32, 32)])
