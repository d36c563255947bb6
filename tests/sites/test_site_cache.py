"""Search results are cached."""

import operator
import threading
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.runner.checkpoint import get_state_dict, weights_to_cpu
from torch import distributed as dist
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.models import CifarResNet, GatedBackbone
from fgc_mm.reliability.checkpoint_reader import read_checkpoint
from fgc_mm.sites import SiteLayer, find_sites, search_sites, site_cache
from fgc_mm.sites.found_sites import FoundSites, _positions, _runs
from fgc_mm.sites.network_fingerprint import network_fingerprint
from fgc_mm.sites.site import GateSite

GATE = dict(type='fgc_mm.BinaryConcreteGate')


def scaled(x, factor):
    return x * factor


def summed(x, factor):
    return x + x.flip(1) * factor


class Net(nn.Module):
    """Two convs with a function between them."""

    def __init__(self, between=torch.relu, width=4, **options):
        super().__init__()
        self.a = nn.Conv2d(3, width, 1, **options)
        self.b = nn.Conv2d(width, 2, 1)
        self.between = between
        self.register_buffer('order', torch.arange(width))
        self.limit = 6

    def forward(self, x):
        return self.b(self.between(self.a(x)[:, self.order]).clamp(max=9))


@pytest.fixture
def searches(monkeypatch):
    """Every search, as the class of its network."""
    made = []

    def search(backbone, *rest):
        made.append(type(backbone))
        return real(backbone, *rest)

    from fgc_mm.sites import discovery

    real = discovery._bounded_search
    monkeypatch.setattr(discovery, '_bounded_search', search)
    return made


def test_an_equal_network_is_not_searched(searches):
    first = find_sites(CifarResNet(20, base_channels=4))
    equal = CifarResNet(20, base_channels=4)
    for parameter in equal.parameters():  # as after training
        nn.init.normal_(parameter)
    assert find_sites(equal) == first
    assert find_sites(equal, ['layer1.*']) == first[:3]
    assert len(searches) == 1
    find_sites(equal, dict(type='auto', residual=True))
    assert len(searches) == 2


def reordered():
    net = Net()
    net.order.copy_(torch.tensor([1, 0, 2, 3]))
    return net


def limited():
    net = Net()
    net.limit = 7
    return net


def hooked():
    net = Net()
    net.a.register_forward_hook(lambda m, x, y: y.flip(1))
    return net


def zeroed():
    net = Net()
    nn.init.zeros_(net.a.weight)
    return net


def patched(monkeypatch):
    monkeypatch.setattr(Net, 'forward', lambda m, x: m.b(m.a(x).flip(1)))
    return Net()


@pytest.mark.parametrize(
    'other',
    [
        partial(Net, width=6),
        partial(Net, bias=False),
        partial(Net, torch.sigmoid),
        partial(Net, lambda x: x.flip(1)),
        partial(Net, partial(summed, factor=2)),
        partial(Net, partial(summed, factor=3)),
        partial(Net, lambda x: scaled(x, 2)),
        reordered, limited, hooked, zeroed,
    ],
)  # fmt: skip
def test_another_network_has_another_fingerprint(other):
    one, two = (network_fingerprint(other(), {}) for _ in range(2))
    assert one == two != network_fingerprint(Net(), {})


def test_a_changed_method_or_helper_changes_the_fingerprint(monkeypatch):
    before = network_fingerprint(Net(), {})
    helped = network_fingerprint(Net(lambda x: scaled(x, 2)), {})
    assert network_fingerprint(patched(monkeypatch), {}) != before
    monkeypatch.setitem(globals(), 'scaled', summed)
    assert network_fingerprint(Net(lambda x: scaled(x, 2)), {}) != helped


def test_nested_lists_need_no_more_memory_than_flat_ones():
    """Each level once doubled the text; 40 were more than the memory."""

    def nested(number, depth=60):
        net, value = Net(), [number]
        for _ in range(depth):
            value = [value]
        net.limit = value
        return network_fingerprint(net, {})

    assert nested(1) == nested(1) != nested(2)
    assert nested(1) != nested(1, depth=59)
    net = Net()
    net.limit = [['a', 'b'], 'c']
    other = Net()
    other.limit = [['a'], 'b', 'c']
    assert network_fingerprint(net, {}) != network_fingerprint(other, {})
    net.limit.append(net.limit)  # contains itself: cannot be described
    assert network_fingerprint(net, {}) is None


def test_trained_weights_and_modes_do_not_change_it():
    net = nn.Sequential(Net(), nn.BatchNorm2d(2))
    before = network_fingerprint(net, {})
    net(torch.rand(4, 3, 8, 8)).sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert network_fingerprint(net.eval(), {}) == before


class Options:
    """An object that forward reads."""

    def __init__(self):
        self.value = False
        self.own = self


FLAGS, TABLE, OPTIONS = [False], {'mode': 'plain'}, Options()
ARRAY, TENSOR = np.zeros(2), torch.zeros(2)


class Configured(Net):
    """Reads global data and class attributes."""

    reverse = False
    between_them = partial(scaled, factor=2)

    def forward(self, x):
        x = self.a(x)
        if FLAGS[0] or TABLE['mode'] == 'flip' or self.reverse:
            x = x.flip(1)
        if OPTIONS.value or ARRAY[0]:
            x = x.flip(1)
        return self.b(x + TENSOR[0] * x.flip(1))


@pytest.mark.parametrize(
    ('change', 'owner', 'name', 'value'),
    [
        (setattr, Configured, 'reverse', True),
        (setattr, Configured, 'between_them', partial(scaled, factor=3)),
        (setattr, OPTIONS, 'value', True),
        (operator.setitem, FLAGS, 0, True),
        (operator.setitem, TABLE, 'mode', 'flip'),
        (operator.setitem, ARRAY, 0, 1),
        (operator.setitem, TENSOR, 0, 1),
    ],
)
def test_global_data_and_class_attributes_change_it(
    change, owner, name, value
):
    get = getattr if change is setattr else operator.getitem
    before, old = network_fingerprint(Configured(), {}), get(owner, name)
    old = old.clone() if isinstance(old, torch.Tensor) else old
    change(owner, name, value)
    changed = network_fingerprint(Configured(), {})
    change(owner, name, old)
    assert None not in (before, changed) and before != changed
    assert network_fingerprint(Configured(), {}) == before


MODULE = """
import enum, functools, logging, torch
from torch import nn
from mmengine.registry import MODELS
NAMES = {ORDER}
class Kind(enum.Enum): ONE = object()
class Options:
    def __init__(self): self.names, self.kind = NAMES, Kind.ONE
OPTIONS, ACT, LOG = Options(), torch.relu, logging.getLogger('x')
@functools.lru_cache
def scaled(x): return x * 2
class Net(nn.Module):
    own = NAMES
    def __init__(self): super().__init__(); self.a = nn.Conv2d(3, 4, 1)
    def forward(self, x):
        LOG.debug(MODELS)
        return ACT(self.a(x)) if OPTIONS in {ORDER} else scaled(x)
"""


def test_addresses_and_the_order_of_sets_do_not_change_it():
    def fingerprint(order):
        module = dict(__name__='their_module')
        exec(MODULE.replace('ORDER', order), module)
        kept.append(module)  # so that the next one has other addresses
        return network_fingerprint(module['Net'](), {})

    kept = []
    assert list({0, 8}) != list({8, 0})
    assert fingerprint('0, 8') == fingerprint('8, 0') is not None
    assert fingerprint('0, 8') != fingerprint('0, 9')


class Secret:
    """An object that cannot be described."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, x):
        return x.relu()


def test_a_network_with_an_unknown_object_is_searched_every_time(searches):
    net = Net(Secret())
    assert network_fingerprint(net, {}) is None
    assert find_sites(net) == find_sites(net)
    assert len(searches) == 2
    # and its checkpoint has no sites
    gated = GatedBackbone(net, GATE)
    assert 'sites' not in gated.state_dict()._metadata['']


@pytest.mark.parametrize('state_of', [nn.Module.state_dict, get_state_dict])
def test_a_checkpoint_holds_the_sites(searches, tmp_path, state_of):
    config = dict(type='fgc_mm.CifarResNet', base_channels=4)
    gated = nn.ModuleDict(dict(backbone=GatedBackbone(config, GATE)))
    file = tmp_path / 'epoch_1.pth'
    # mmengine's runner saves it this way
    state = weights_to_cpu(state_of(gated))
    torch.save(dict(state_dict=state, meta={}), file)
    site_cache.clear_cache()  # as in another process
    checkpoint = read_checkpoint(file)
    again = GatedBackbone(config, GATE, ['layer3.*'])
    assert len(searches) == 1
    assert again.sites == gated['backbone'].sites[-3:]
    assert again.found == gated['backbone'].found
    again.load_state_dict(checkpoint['state_dict'], strict=False)
    GatedBackbone(dict(config, base_channels=8), GATE)
    assert len(searches) == 2


@pytest.mark.parametrize(
    'text',
    [
        '', '[]', '{', '{"sites": 3}',
        FoundSites(None, (3, 8, 8), ()).to_text(),
        FoundSites('KEY', (3, 8, 8), (GateSite('x', (), (), 3, 4),)).to_text(),
        FoundSites(
            'KEY', (3, 8, 8),
            (GateSite('a', (SiteLayer('b'),), (SiteLayer('x'),), 3, 4),),
        ).to_text(),
        FoundSites(
            'KEY', (3, 8, 8),
            (GateSite('a', (SiteLayer('b', (9,) * 4),), (SiteLayer('a'),),
                      3, 4),),
        ).to_text(),
    ],
)  # fmt: skip
def test_damaged_text_is_searched_again(searches, text):
    net = Net()
    key = search_sites(net).fingerprint
    site_cache.cache_sites(key, text.replace('KEY', key))
    assert [site.name for site in find_sites(net)] == ['a']
    assert len(searches) == 2


def test_text_makes_the_round_trip():
    found = search_sites(CifarResNet(20, base_channels=4))
    assert FoundSites.from_text(found.to_text()) == found


@pytest.mark.parametrize(
    'positions',
    [(0, 1, 2, -1, -1, -1, 0, 1), (0, 0, 1, 1), (0,), (), (3, 1, 2, 2, 7)],
)
def test_runs_make_the_round_trip(positions):
    assert _positions(_runs(positions)) == positions


def test_of_several_ranks_one_searches():
    store, made = dist.HashStore(), []
    found = FoundSites('f' * 64, (3, 8, 8), ())

    def search():
        made.append(1)
        return found

    results = []
    ranks = [
        threading.Thread(
            target=lambda: results.append(
                site_cache.search_once(store, 'f' * 64, search)
            )
        )
        for _ in range(3)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(20)
    assert results == [found] * 3 and len(made) == 1


def test_where_the_first_rank_fails_the_others_search():
    store = dist.HashStore()
    with pytest.raises(RuntimeError, match='on purpose'):
        site_cache.search_once(store, 'key', fail)
    found = FoundSites('key', (3, 8, 8), ())
    assert site_cache.search_once(store, 'key', lambda: found) is found


def test_where_the_first_rank_refuses_all_do():
    def refuse():
        raise FGCError('the network has no site')

    def never():
        raise AssertionError('it searches again')

    store = dist.HashStore()
    for search in (refuse, never, never):
        with pytest.raises(FGCError, match=r'^the network has no site$'):
            site_cache.search_once(store, 'key', search)


def fail():
    raise RuntimeError('on purpose')


def test_the_least_recently_used_result_is_dropped():
    for number in range(site_cache.MAX_NETWORKS + 2):
        site_cache.cache_sites(str(number), '')
    assert len(site_cache._cache) == site_cache.MAX_NETWORKS
    assert '1' not in site_cache._cache and '2' in site_cache._cache
