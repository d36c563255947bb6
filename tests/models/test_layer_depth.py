"""Layer-wise learning rates of a gated network are those of the plain one."""

import pytest
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS as MMPRETRAIN

from fgc_mm.errors import FGCError
from fgc_mm.registry import MODELS

VIT = dict(
    type='VisionTransformer',
    arch=dict(
        embed_dims=12, num_layers=3, num_heads=2, feedforward_channels=24
    ),
    img_size=32,
    patch_size=16,
)
HEAD = dict(
    type='VisionTransformerClsHead', num_classes=10, in_channels=12, topk=(1,)
)
RESNET = dict(type='ResNet', depth=50, base_channels=4, stem_channels=4)
RESNET_HEAD = dict(
    type='LinearClsHead', num_classes=10, in_channels=2048, topk=(1,)
)
POOL = dict(type='GlobalAveragePooling')
WRAPPER = dict(
    optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
    constructor='LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.5,
        custom_keys={'backbone.gates': dict(decay_mult=0.0)},
    ),
)


def rates(model):
    groups = build_optim_wrapper(model, WRAPPER).param_groups
    return {
        group['param_name']: (group['lr'], group['weight_decay'])
        for group in groups
        if group['params']  # one without holds the base settings
    }


@pytest.mark.parametrize(
    'backbone, neck, head',
    [(VIT, None, HEAD), (RESNET, POOL, RESNET_HEAD)],
    ids=['vit', 'resnet'],
)
def test_the_same_rates_as_without_gates(tiny, backbone, neck, head):
    cfg = tiny.cfg(backbone=backbone)
    cfg.update(neck=neck, head=head)
    plain = MMPRETRAIN.build(
        dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)
    )
    wanted, found = rates(plain), rates(MODELS.build(cfg))
    assert len({lr for lr, _ in wanted.values()}) > 3
    for name, pair in wanted.items():
        own = name.replace('backbone.', 'backbone.backbone.', 1)
        assert found.pop(own) == pair, name
    # what is left are the gates: new, as the head is
    assert found and all('backbone.gates.' in name for name in found)
    assert set(found.values()) == {(1.0, 0.0)}


def test_a_network_without_depths_is_refused(tiny):
    with pytest.raises(FGCError, match='CifarResNet has no get_layer_depth'):
        rates(tiny.build())
