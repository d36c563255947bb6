"""get_macs.py on networks of other inputs, and with attention."""

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS as MMPRETRAIN
from torch import nn

from fgc_mm.engine.image_size import config_image_size
from fgc_mm.errors import FGCError
from fgc_mm.models import build_macs_table

from .conftest import TOOLS, load_tool

CONFIGS = TOOLS.parent / 'configs'


@pytest.fixture(scope='module')
def tool():
    return load_tool('analysis_tools/get_macs')


def classifier(backbone, channels):
    head = dict(type='LinearClsHead', num_classes=2, in_channels=channels)
    return Config(
        dict(
            model=dict(
                type='ImageClassifier',
                backbone=backbone,
                neck=dict(type='GlobalAveragePooling'),
                head=head,
            )
        )
    )


GRAY = dict(type='fgc_mm.CifarResNet', base_channels=4, in_channels=1)
GATED = dict(
    type='fgc_mm.GatedBackbone',
    backbone=GRAY,
    gate=dict(type='fgc_mm.BinaryConcreteGate'),
    sites=['layer1.0.conv1'],
)
BANDS = dict(
    type='ResNet', depth=18, base_channels=4, stem_channels=4, in_channels=5,
    num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,),
)  # fmt: skip
LENET = dict(type='LeNet5')  # has no in_channels: its first conv says 1


@pytest.mark.parametrize(
    ('backbone', 'channels', 'size', 'shape'),
    [
        (GRAY, 16, 8, (1, 8, 8)),
        (GATED, 16, 8, (1, 8, 8)),
        (BANDS, 4, 8, (5, 8, 8)),
        (LENET, 120, 32, (1, 32, 32)),
    ],
)
def test_the_channels_are_the_networks(tool, backbone, channels, size, shape):
    cfg = classifier(backbone, channels)
    if backbone is LENET:
        del cfg.model['neck']
        cfg.model.head = None
    model = MMPRETRAIN.build(cfg.model)
    found, table = tool.count(cfg, model, (size, size))
    assert found == shape and table.dense > 0


def test_a_size_that_does_not_run_is_one_sentence(tool):
    arch = dict(
        embed_dims_outer=8, embed_dims_inner=4, num_layers=1,
        num_heads_outer=1, num_heads_inner=1,
    )  # fmt: skip
    vit = dict(type='TNT', arch=arch, img_size=32)
    cfg = classifier(vit, 8)
    with pytest.raises(
        FGCError, match=r'image of 3x48x48 \(.*\); .*--shape\.$'
    ):
        tool.count(cfg, MMPRETRAIN.build(cfg.model), (48, 48))


class Attends(nn.Module):
    """One layer, and one product of tensors."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(4, 4)

    def forward(self, x):
        x = self.backbone(x)
        return x @ x.mT @ x


def test_what_no_layer_computes_has_a_row(tool, capsys):
    table = build_macs_table(Attends(), (8, 4))
    assert table.dense == 8 * 16 + 2 * 8 * 8 * 4
    tool.Console(width=100).print(tool.totals(table, [0.5]))
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if 'outside layers' in line]
    assert '512' in row and '80.0%' in row


@pytest.mark.parametrize('size', [16, 32])
def test_the_size_of_images_held_in_memory_is_that_of_what_they_wrap(
    tool, size
):
    """Else a user would have to give --shape for these configs."""
    cfg = Config.fromfile(CONFIGS / f'dense_resnet20_folder{size}.py')
    assert tool.image_size(cfg, None) == (size, size)
    assert config_image_size(cfg) == (size, size)
    cfg.train_dataloader.dataset.dataset.pop('pipeline')
    with pytest.raises(FGCError, match='no crop'):
        tool.image_size(cfg, None)


def test_a_config_without_training_needs_a_shape(tool):
    with pytest.raises(FGCError, match='give --shape'):
        tool.image_size(Config(dict(train_dataloader=None)), None)


@pytest.mark.parametrize('group', [1, 2])
@pytest.mark.parametrize('density', [0.3, 0.44, 0.4375])
def test_a_density_of_fbs_costs_what_the_network_does(tool, density, group):
    """It keeps ceil(density * C) channels, not a fraction of C."""
    torch.manual_seed(0)
    cfg = Config.fromfile(CONFIGS / 'fbs_resnet20_cifar10.py')
    cfg.model.backbone.gate.update(density=density, group=group)
    cfg.model.backbone.backbone.base_channels = 8
    cfg.model.head.in_channels = 32
    model = MMPRETRAIN.build(cfg.model).eval()
    for gate in model.backbone.gates.values():
        inner = getattr(gate, 'gate', gate)
        nn.init.constant_(inner.predict.bias, 9.0)  # no saliency is 0
    with torch.no_grad():
        (sample,) = model.predict(torch.rand(1, 3, 16, 16))
    table = model.macs_table((3, 16, 16))
    counted = tool.macs_of_keep_ratio(cfg)(table, density)
    assert counted == sample.macs.item()


@pytest.mark.parametrize('density', [0, 1.5])
def test_a_density_that_is_no_fraction(tool, density):
    cfg = Config.fromfile(CONFIGS / 'fbs_resnet20_cifar10.py')
    with pytest.raises(FGCError, match=r'above 0 and up to 1\.$'):
        tool.macs_of_keep_ratio(cfg)(None, density)
