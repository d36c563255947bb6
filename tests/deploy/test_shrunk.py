"""A network that is narrower for a while is as it was afterwards."""

import pytest
import torch
from torch import nn
from torch.nn.utils import weight_norm

from fgc_mm.deploy.compaction.removed_channels import shrunk
from fgc_mm.models import ChannelMap


@pytest.mark.filterwarnings('ignore:.*weight_norm.*:FutureWarning')
@pytest.mark.parametrize('fails', [False, True])
def test_everything_is_restored(fails):
    network = nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.GroupNorm(4, 12), nn.BatchNorm2d(12),
        weight_norm(nn.Conv2d(12, 8, 1)),
    ).eval()  # fmt: skip
    kept = [0, 1, 3, 4, 6, 7, 9, 10]
    outputs = dict.fromkeys(('0', '1', '2'), kept)
    channel_map = ChannelMap.of(network, outputs, {'3': kept})
    images = torch.randn(2, 3, 4, 4)
    wanted = network(images)
    before = {
        **dict(network.named_parameters()),
        **dict(network.named_buffers()),
    }
    printed = str(network)
    try:
        with shrunk(network, channel_map):
            assert network[:3](images).shape[1] == 8
            assert network[1].num_channels == network[3].in_channels == 8
            assert network(images).shape == wanted.shape
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    after = {
        **dict(network.named_parameters()),
        **dict(network.named_buffers()),
    }
    assert after.keys() == before.keys()
    assert all(after[name] is value for name, value in before.items())
    assert str(network) == printed
    assert torch.equal(network(images), wanted)
