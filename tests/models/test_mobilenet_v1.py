"""MobileNetV1 as published."""

import pytest
import torch
from mmpretrain.registry import MODELS as MMPRETRAIN

from fgc_mm.errors import FGCError
from fgc_mm.models import MobileNetV1, build_macs_table
from fgc_mm.registry import MODELS


def classifier(classes, **options):
    return MMPRETRAIN.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='fgc_mm.MobileNetV1', **options),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead', num_classes=classes, in_channels=1024
            ),
        )
    )


def test_the_published_macs_and_parameters():
    # Howard et al., Table 4: 569 million mult-adds, 4.2 million parameters
    model = classifier(1000)
    assert build_macs_table(model, (3, 224, 224)).dense == 568_740_352
    assert sum(p.numel() for p in model.parameters()) == 4_231_976


@pytest.mark.parametrize(('small', 'size'), [(False, 1), (True, 2)])
def test_shapes(small, size):
    network = MobileNetV1(0.25, small_images=small).eval()
    (out,) = network(torch.zeros(1, 3, 32, 32))
    assert out.shape == (1, 256, size, size)


def test_gates_reach_through_the_depthwise_convs():
    gated = MODELS.build(
        dict(
            type='fgc_mm.GatedBackbone',
            backbone=dict(type='fgc_mm.MobileNetV1', width=0.25),
            gate=dict(type='fgc_mm.FTWTGate'),
        )
    )
    assert [site.name for site in gated.sites] == [
        'stem.0', *(f'pairs.{i}.1.0' for i in range(12))
    ]  # fmt: skip


def test_a_width_without_channels_is_refused():
    with pytest.raises(FGCError, match=r'width=0\.01 .*leaves no channel'):
        MobileNetV1(0.01)
