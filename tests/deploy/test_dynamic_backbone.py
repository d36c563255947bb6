"""A dynamic backbone alone: the features of the masked one."""

import copy

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

import fgc_mm.deploy.dynamic.calibrate as calibration
from fgc_mm.deploy import to_dynamic
from fgc_mm.deploy.dynamic.model import DynamicBackbone
from fgc_mm.errors import FGCError
from fgc_mm.models.record_collector import collect_records

MAPS = dict(out_indices=(0, 1, 2, 3))
# (config, image size)
NETWORKS = {
    'ResNet-18': (dict(type='ResNet', depth=18, base_channels=8, **MAPS), 64),
    'MobileNetV2': (
        dict(type='MobileNetV2', widen_factor=0.25, out_indices=(1, 2, 4, 6)),
        64,
    ),
    'ShuffleNetV2': (
        dict(type='ShuffleNetV2', widen_factor=0.5, out_indices=(0, 1, 2)),
        64,
    ),
    'HRNet': (dict(type='HRNet', extra=dict(
        stage1=dict(num_modules=1, num_branches=1, block='BASIC',
                    num_blocks=(1,), num_channels=(8,)),
        stage2=dict(num_modules=1, num_branches=2, block='BASIC',
                    num_blocks=(1, 1), num_channels=(8, 16)),
        stage3=dict(num_modules=1, num_branches=3, block='BASIC',
                    num_blocks=(1, 1, 1), num_channels=(8, 16, 32)),
        stage4=dict(num_modules=1, num_branches=4, block='BASIC',
                    num_blocks=(1,) * 4, num_channels=(8, 16, 32, 64)),
    )), 64),
    'ViT': (dict(type='VisionTransformer', img_size=32, patch_size=8,
                 out_type='featmap', out_indices=(0, 1), arch=dict(
                     embed_dims=24, num_layers=2, num_heads=2,
                     feedforward_channels=48)), 32),
}  # fmt: skip


needs_kernel = pytest.mark.needs_kernel


@pytest.fixture(autouse=True)
def all_sites_pay(monkeypatch):
    """Skip channels wherever possible, regardless of the timing."""
    monkeypatch.setattr(calibration, 'REPEATS', 1)
    monkeypatch.setattr(calibration, '_is_faster', lambda *_: True)


@pytest.fixture(scope='module')
def resnet(gated):
    return gated(NETWORKS['ResNet-18'][0])[0]


@pytest.mark.parametrize(
    ('name', 'way'),
    [
        *(pytest.param(x, 'kernel', marks=needs_kernel) for x in NETWORKS),
        ('ResNet-18', 'torch'),
        ('ViT', 'torch'),
    ],
)
def test_features_and_decisions_are_those_of_the_masked(
    gated, pictures, name, way
):
    config, size = NETWORKS[name]
    masked, _ = gated(config)
    images = pictures(size, 3)
    dynamic = to_dynamic(masked, images, backend=way)
    assert isinstance(dynamic, DynamicBackbone)
    assert dynamic.plan.executor == 'program', dynamic.plan.executor_why
    sites = dynamic.dynamic_report()['sites']
    assert any(s['executed'] == 'dynamic' for s in sites.values())
    for batch in (images, images[1:2], pictures(size, 1) * 0.5):
        with torch.no_grad():
            want, records = masked.forward_gated(batch)
        got, own = dynamic.forward_gated(batch)
        for features in (got, dynamic(batch)):
            assert type(features) is type(want)
            torch.testing.assert_close(features, want, atol=2e-4, rtol=1e-3)
        for mine, theirs in zip(own, records, strict=True):
            assert mine.site is theirs.site or mine.site == theirs.site
            assert torch.equal(mine.mask, theirs.mask)


def test_the_given_backbone_is_not_changed(resnet, pictures):
    state = copy.deepcopy(resnet.state_dict())
    resnet.train()
    dynamic = to_dynamic(resnet, pictures(64, 2), backend='torch')
    assert resnet.training and not dynamic.training
    resnet.eval()
    for key, value in resnet.state_dict().items():
        assert torch.equal(value, state[key])
    assert all(p.requires_grad for p in resnet.parameters())
    assert not any(p.requires_grad for p in dynamic.parameters())


def test_a_plan_serves_again(resnet, pictures):
    first = to_dynamic(resnet, pictures(64, 2), backend='torch')
    again = to_dynamic(resnet, plan=first.plan, backend='torch')
    assert again.plan.sites == first.plan.sites
    image = pictures(64, 1)
    assert torch.equal(again(image)[-1], first(image)[-1])
    notes = again.dynamic_report()['notes']
    assert notes == []
    again(pictures(96, 1))
    (note,) = again.dynamic_report()['notes']
    assert '3x96x96 were not in the calibration' in note


def test_its_records_can_be_collected(resnet, pictures):
    dynamic = to_dynamic(resnet, pictures(64, 2), backend='torch')
    with collect_records(dynamic) as calls:
        dynamic(pictures(64, 1))
    assert [r.site.name for r in calls[0]] == [s.name for s in resnet.sites]


class Detector(BaseModel):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        return self.backbone(x)


def test_what_cannot_be_dynamic_is_refused(resnet, pictures):
    images = pictures(64, 1)
    with pytest.raises(FGCError, match='make its backbone dynamic'):
        to_dynamic(Detector(resnet), images)
    with pytest.raises(FGCError, match='dynamic already'):
        to_dynamic(to_dynamic(resnet, images, backend='torch'), images)
    with pytest.raises(FGCError, match='has no gates'):
        to_dynamic(nn.Sequential(nn.Conv2d(3, 3, 1)), images)
    dynamic = to_dynamic(resnet, images, backend='torch')
    with pytest.raises(FGCError, match='runs in evaluation only'):
        dynamic.train()
