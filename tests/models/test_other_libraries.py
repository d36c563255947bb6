"""Backbones of torchvision, timm and Hugging Face.

The last two are tested where they are installed.
"""

import copy

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models
from torchvision.models._utils import IntermediateLayerGetter

import fgc_mm.deploy.dynamic.calibrate as calibration
from fgc_mm.deploy import to_dynamic
from fgc_mm.models import GatedBackbone, GatedImageClassifier
from fgc_mm.models.gated_backbone import as_outputs

GATE = dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4)
L0 = dict(type='fgc_mm.L0Loss', loss_weight=0.1)


def torchvision_maps():
    network = torchvision_models.resnet18(width_per_group=64)
    layers = {'layer1': 'first', 'layer2': 'second'}
    return IntermediateLayerGetter(network, layers)


def torchvision_features():
    return torchvision_models.mobilenet_v3_small(width_mult=0.25).features


def timm_maps():
    timm = pytest.importorskip('timm')
    return timm.create_model('resnet10t', features_only=True)


def timm_transformer():
    timm = pytest.importorskip('timm')
    return timm.create_model(
        'vit_tiny_patch16_224', img_size=32, patch_size=8, depth=2,
        num_classes=0,
    )  # fmt: skip


def hugging_face_maps():
    hf = pytest.importorskip('transformers')
    return hf.ResNetBackbone(
        hf.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2],
            layer_type='basic', out_indices=(1, 2),
        )
    )  # fmt: skip


def hugging_face_convolutions():
    hf = pytest.importorskip('transformers')
    return hf.ResNetModel(
        hf.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2],
            layer_type='basic',
        )
    )  # fmt: skip


def hugging_face_transformer():
    hf = pytest.importorskip('transformers')
    return hf.ViTModel(
        hf.ViTConfig(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=48, image_size=32, patch_size=8,
        )
    )  # fmt: skip


# (builder, channels of the last output, maps)
NETWORKS = [
    (torchvision_maps, 128, 2),
    (torchvision_features, 144, 1),
    (timm_maps, 512, 5),
    (timm_transformer, 192, 1),
    (hugging_face_maps, 16, 2),
    (hugging_face_convolutions, 16, 1),
    (hugging_face_transformer, 24, 1),
]
every_network = pytest.mark.parametrize(
    ('build', 'channels', 'maps'), NETWORKS, ids=lambda x: getattr(
        x, '__name__', ''
    )
)  # fmt: skip


def classifier_of(build, channels):
    torch.manual_seed(0)
    gated = GatedBackbone(build(), GATE)
    features = as_outputs(
        gated(torch.randn(2, 3, *gated.found.image_shape[1:]))
    )
    pooled = features[-1].ndim == 4
    return GatedImageClassifier(
        gated,
        gate_losses=[L0],
        neck=dict(type='GlobalAveragePooling') if pooled else None,
        head=dict(type='LinearClsHead', num_classes=5, in_channels=channels),
    )


@every_network
def test_it_is_gated_trained_counted_and_made_dynamic(
    build, channels, maps, tiny, monkeypatch
):
    model = classifier_of(build, channels)
    gated = model.backbone
    images = torch.randn(2, 3, *gated.found.image_shape[1:])
    check_open_gates(gated, images, maps)
    check_training(model, images, tiny.samples([1, 4]))
    monkeypatch.setattr(calibration, 'REPEATS', 1)
    with torch.no_grad():
        want = model.eval()(images)
    (sample, _) = model.predict(images)
    assert 0 < sample.macs <= sample.macs_table.base() * 1.2
    dynamic = to_dynamic(model, images, backend='torch')
    torch.testing.assert_close(dynamic(images), want, atol=1e-4, rtol=1e-3)


def check_open_gates(gated, images, maps):
    """With all gates open it is the plain network; with others it is not."""
    gated = copy.deepcopy(gated).eval()
    features = []
    with torch.no_grad():
        plain = as_outputs(gated.backbone(images))
        for bias in (50.0, -50.0):
            for gate in gated.gates.values():
                nn.init.zeros_(gate.expand.weight)
                nn.init.constant_(gate.expand.bias, bias)
            features.append(as_outputs(gated(images)))
    assert len(plain) == maps
    torch.testing.assert_close(features[0], plain)
    assert not torch.allclose(features[1][-1], plain[-1])


def check_training(model, images, samples):
    losses = model.train().loss(images, samples)
    model.parse_losses(losses)[0].backward()
    for gate in model.backbone.gates.values():
        grads = [p.grad for p in gate.parameters()]
        assert all(g is not None and g.isfinite().all() for g in grads)


def test_named_outputs_become_features():
    image, tokens = torch.zeros(1, 2, 3, 3), torch.zeros(1, 5, 2)
    pooled = torch.zeros(1, 2)
    assert as_outputs(image) == (image,)
    assert as_outputs([image, image]) == (image, image)
    both = dict(last_hidden_state=image, pooler_output=pooled)
    assert as_outputs(both)[0] is image
    assert as_outputs(dict(both, last_hidden_state=tokens))[0] is pooled
    assert as_outputs(dict(last_hidden_state=tokens))[0] is tokens
    assert as_outputs(dict(both, feature_maps=(image,) * 3)) == (image,) * 3
    assert as_outputs(dict(first=image, second=tokens)) == (image, tokens)
