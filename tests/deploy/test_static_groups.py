"""What torch-pruning can take out of a network, static pruning can."""

import copy
from functools import partial

import pytest
import torch
import torch_pruning as tp
from torch import nn

from fgc_mm.deploy.compaction import static_groups
from fgc_mm.deploy.compaction.importances import IMPORTANCES, scores_of
from fgc_mm.deploy.compaction.static_groups import (
    channels_to_remove,
    find_groups,
)
from fgc_mm.errors import FGCError

conv = partial(nn.Conv2d, kernel_size=3, padding=1)


class ChannelsLast(nn.Sequential):
    """A layer norm over the channels, as transformers have it."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def between(*layers):
    return nn.Sequential(conv(3, 12), *layers, conv(12, 4))


# the network, and the paths of the convs whose outputs can go
NETWORKS = {
    'PReLU()': (lambda: between(nn.PReLU()), {'0'}),
    'PReLU(12)': (lambda: between(nn.PReLU(12)), {'0'}),
    'BN(affine=False)': (
        lambda: between(nn.BatchNorm2d(12, affine=False)), {'0'},
    ),
    'BN(track_running_stats=False)': (
        lambda: between(nn.BatchNorm2d(12, track_running_stats=False)), {'0'},
    ),
    'GroupNorm(4)': (lambda: between(nn.GroupNorm(4, 12)), {'0'}),
    'GroupNorm(1)': (lambda: between(nn.GroupNorm(1, 12)), {'0'}),
    'InstanceNorm': (lambda: between(nn.InstanceNorm2d(12)), {'0'}),
    'LayerNorm': (lambda: between(ChannelsLast(nn.LayerNorm(12))), {'0'}),
    'grouped': (
        lambda: between(nn.ReLU(), conv(12, 12, groups=3), nn.ReLU()),
        {'0', '2'},
    ),
    'grouped, other widths': (
        lambda: between(conv(12, 24, groups=2), nn.ReLU(), conv(24, 12)),
        {'0', '1', '3'},
    ),
    'depthwise': (lambda: between(conv(12, 12, groups=12)), {'0'}),
    'Conv3d': (
        lambda: nn.Sequential(
            conv(3, 12), nn.Unflatten(2, (6, 1)), nn.ReLU(),
            nn.Conv3d(12, 8, (3, 1, 3), padding=(1, 0, 1)), nn.Flatten(),
        ),
        {'0'},
    ),
    'flattened': (
        lambda: nn.Sequential(
            conv(3, 12), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(48, 5),
        ),
        {'0'},
    ),
}  # fmt: skip


@pytest.fixture(params=NETWORKS)
def case(request):
    torch.manual_seed(0)
    make, paths = NETWORKS[request.param]
    network = make()
    for module in network.modules():
        if getattr(module, 'running_mean', None) is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
        for parameter in module.parameters(recurse=False):
            nn.init.normal_(parameter)
    return network.eval(), paths


@pytest.fixture
def images():
    return torch.randn(2, 3, 6, 6, generator=torch.manual_seed(1))


def second_halves(groups):
    return [
        (
            group,
            [c for block in group.blocks for c in block[len(block) // 2 :]],
        )
        for group in groups
    ]


def producer(group):
    """The conv that makes a group's channels."""
    return min(member.path for member in group.members if member.output)


def by_torch_pruning(network, leaving, images):
    small = copy.deepcopy(network)
    graph = tp.DependencyGraph().build_dependency(small, images[:1])
    for group, channels in leaving:
        layer = small.get_submodule(producer(group))
        prune = tp.prune_conv_out_channels
        graph.get_pruning_group(layer, prune, channels).prune()
    return small


def test_the_network_is_that_of_torch_pruning(case, images):
    network, paths = case
    groups = find_groups(network, images)
    assert set(map(producer, groups)) == paths
    leaving = second_halves(groups)
    gone = channels_to_remove(leaving)
    assert gone.problem(network, images) == ''
    small = gone.channel_map(network).shrink(copy.deepcopy(network))
    wanted = by_torch_pruning(network, leaving, images)
    own, other = small.state_dict(), wanted.state_dict()
    assert own.keys() == other.keys()
    for key, value in own.items():
        assert torch.equal(value, other[key]), key
    with torch.no_grad():
        assert torch.equal(small(images), wanted(images))


@pytest.mark.parametrize('importance', IMPORTANCES)
@pytest.mark.filterwarnings('ignore')
def test_importances_score_every_channel(importance, images):
    torch.manual_seed(0)
    network = between(
        nn.BatchNorm2d(12), nn.PReLU(), conv(12, 24, groups=3),
        nn.BatchNorm2d(24), conv(24, 12), nn.BatchNorm2d(12),
    ).eval()  # fmt: skip
    for group in find_groups(network, images):
        scores = scores_of(importance, group)
        assert scores.shape == (group.channels,)


def test_every_group_loses_as_many(images):
    network = between(conv(12, 24, groups=4), conv(24, 12)).eval()
    groups = find_groups(network, images)
    first, second, _ = sorted(groups, key=producer)
    assert first.blocks == tuple(
        tuple(range(start, start + 3)) for start in (0, 3, 6, 9)
    )
    assert {len(block) for block in second.blocks} == {6}
    problem = channels_to_remove([(first, [0])]).problem(network, images)
    assert 'equally many in each group' in problem


@pytest.mark.parametrize(('size', 'least'), [(6, 1), (1, 2)])
def test_a_group_norm_of_one_pixel_keeps_two_channels(size, least):
    """Of one number there are no statistics, and torch refuses."""
    network = between(nn.AdaptiveAvgPool2d(size), nn.GroupNorm(4, 12)).eval()
    images = torch.randn(2, 3, 6, 6)
    (group,) = find_groups(network, images)
    assert group.least == least
    most = group.without(3 - least)
    assert most.problem(network, images[:1]) == ''


class Sequence(nn.Module):
    """A recurrent layer that reads the channels of a conv."""

    def __init__(self):
        super().__init__()
        self.conv = conv(3, 12)
        self.recurrent = nn.LSTM(12, 5, batch_first=True)

    def forward(self, x):
        return self.recurrent(self.conv(x).flatten(2).mT)[0]


REFUSED = {
    'transposed': lambda: between(nn.ConvTranspose2d(12, 12, 2, stride=2)),
    'transposed, grouped': lambda: between(
        nn.ConvTranspose2d(12, 12, 2, stride=2, groups=3)
    ),
    'transposed, depthwise': lambda: between(
        nn.ConvTranspose2d(12, 12, 2, stride=2, groups=12)
    ),
    'recurrent': Sequence,
}


@pytest.mark.parametrize('name', REFUSED)
def test_other_layers_are_refused_in_one_sentence(name, images):
    with pytest.raises(FGCError, match='channel map') as error:
        find_groups(REFUSED[name]().eval(), images)
    assert '\n' not in str(error.value)


def test_groups_beside_a_refused_one_are_pruned(images):
    network = nn.Sequential(
        conv(3, 12), nn.ReLU(), conv(12, 12), nn.ConvTranspose2d(12, 4, 2)
    ).eval()
    assert [*map(producer, find_groups(network, images))] == ['0']


class Reshapes(nn.Sequential):
    """Its code relies on the number of channels."""

    def forward(self, x):
        x = self[0](x)
        return self[1](x.reshape(len(x), 12, *x.shape[2:]))


class Asserts(nn.Sequential):
    """As before, with an error without a message."""

    def forward(self, x):
        x = self[0](x)
        if x.shape[1] != 12:
            raise AssertionError
        return self[1](x)


@pytest.mark.parametrize(
    ('kind', 'reason'),
    [(Reshapes, 'shape .* is invalid'), (Asserts, 'AssertionError')],
)
def test_the_problem_has_the_reason(kind, reason, images):
    network = kind(conv(3, 12), conv(12, 4)).eval()
    with pytest.raises(FGCError, match=rf'\(0: {reason}') as error:
        find_groups(network, images)
    assert '\n' not in str(error.value)


def test_an_error_of_the_code_is_not_hidden(images, monkeypatch):
    """Only the network's own forward code may fail without a traceback."""
    network = between().eval()
    (group,) = find_groups(network, images)
    monkeypatch.setattr(
        'fgc_mm.deploy.compaction.removed_channels.map_widths',
        lambda *_: 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        channels_to_remove([(group, [0])]).problem(network, images)


def test_a_batch_is_traced(images):
    """Without a batch, circular padding shifts what counts as channels."""
    network = between(nn.ReLU(), conv(12, 12, padding_mode='circular')).eval()
    dims = []

    def observe(_, args):
        dims.append(args[0].dim())
        assert args[0].dim() == 4  # torch-pruning then tries the batch

    network.register_forward_pre_hook(observe)
    assert set(map(producer, find_groups(network, images))) == {'0', '2'}
    assert set(dims) == {4}


@pytest.mark.parametrize('inner', [1, None])
def test_the_rule_is_named_where_no_group_fits(inner, images):
    """A single inner channel, and outputs only."""
    convs = [conv(3, inner), conv(inner, 4)] if inner else [conv(3, 4)]
    with pytest.raises(FGCError, match='no group of several channels'):
        find_groups(nn.Sequential(*convs).eval(), images)


def test_images_that_cannot_be_checked_are_refused(images):
    network = between().eval()
    with pytest.raises(FGCError, match=r'images are torch\.float64'):
        find_groups(network, images.double())
    with pytest.raises(FGCError, match=r'\(0, 3, 6, 6\), but a network is'):
        find_groups(network, images[:0])


class Swaps(nn.Sequential):
    """Adds its channels to themselves, with the halves exchanged."""

    def forward(self, x):
        x = self[0](x)
        return self[1](x + torch.cat([x[:, 6:], x[:, :6]], 1))


def test_a_search_that_does_not_end_is_ended(images, monkeypatch):
    monkeypatch.setattr(static_groups, 'MOST_VISITED', 10_000)
    with pytest.raises(FGCError, match='Swaps mixes its channels so that'):
        find_groups(Swaps(conv(3, 12), conv(12, 4)), images)
