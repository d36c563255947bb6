"""Networks of every kind, and gates with given masks."""

import pytest
import torch
from torch import nn

BACKBONES = {
    'CifarResNet-20': dict(type='fgc_mm.CifarResNet', base_channels=8),
    'ResNet-18': dict(type='ResNet', depth=18, base_channels=16),
    'ResNet-50': dict(type='ResNet', depth=50, base_channels=8),
    'ResNeXt-50': dict(type='ResNeXt', depth=50, groups=4, width_per_group=4),
    'SEResNet-50': dict(type='SEResNet', depth=50, base_channels=16),
}


def randomize(network):
    """Norms as after training, so that no channel is like another."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_var, module.weight.data):
                values.uniform_(0.5, 1.5, generator=generator)
            for values in (module.running_mean, module.bias.data):
                values.normal_(0, 0.3, generator=generator)
    return network


def force_gates(backbone, masks):
    """Fixes the decisions: one (C,) of 0 and 1 per site, or one number."""
    for number, gate in enumerate(backbone.gates.values()):
        mask = masks if isinstance(masks, int) else masks[number]
        nn.init.zeros_(gate.expand.weight)
        gate.expand.bias.data.copy_(100.0 * torch.as_tensor(mask) - 50)


@pytest.fixture(scope='session')
def set_gates():
    return force_gates


@pytest.fixture(scope='session', params=BACKBONES)
def gated_backbone(request):
    """A gated backbone in evaluation; a test that changes it copies it."""
    from fgc_mm.registry import MODELS

    torch.manual_seed(0)
    backbone = MODELS.build(
        dict(
            type='fgc_mm.GatedBackbone',
            backbone=BACKBONES[request.param],
            gate=dict(type='fgc_mm.BinaryConcreteGate'),
            # inside the blocks only: neither stems nor squeeze layers
            sites=['layer*.conv[12]'],
        )
    )
    return randomize(backbone).eval()


@pytest.fixture
def images():
    return torch.randn(
        3, 3, 32, 32, generator=torch.Generator().manual_seed(7)
    )


@pytest.fixture(scope='session')
def random_masks():
    """One (C,) mask per site; 4 groups of channels lose equally many."""

    def draw(sites, seed=0):
        generator = torch.Generator().manual_seed(seed)
        masks = []
        for site in sites:
            order = torch.rand(4, site.channels // 4, generator=generator)
            keep = 1 + (site.channels + seed) % max(site.channels // 4 - 1, 1)
            masks.append((order.argsort(1).argsort(1) < keep).flatten())
        return masks

    return draw


@pytest.fixture(scope='session')
def well_used():
    return randomize
