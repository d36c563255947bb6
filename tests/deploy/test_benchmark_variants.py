"""A network that cannot be timed is a row with the reason."""

import pytest
import torch
from mmpretrain.registry import MODELS

from fgc_mm.deploy import PlainForward
from fgc_mm.deploy.timing import variants as timing
from fgc_mm.deploy.timing.measure import measure
from fgc_mm.deploy.timing.variants import BenchmarkVariant, BenchmarkVariants
from fgc_mm.errors import FGCError

NAN = float('nan')


@pytest.fixture
def built(classifier, pictures, tmp_path):
    model, settings = classifier()
    images = pictures(16)
    return BenchmarkVariants(model, settings, images, images, tmp_path, False)


def test_a_static_network_that_fails(pictures, tmp_path):
    """The units of ShuffleNetV2 split channels in halves of fixed width."""
    torch.manual_seed(0)
    backbone = dict(
        type='fgc_mm.GatedBackbone', gate=dict(type='fgc_mm.FBSGate'),
        backbone=dict(type='ShuffleNetV2', widen_factor=0.5),
    )  # fmt: skip
    model = MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=1024),
        )
    )
    model.eval()
    images = pictures(32, 2)
    variants = BenchmarkVariants(model, {}, images, None, tmp_path, False)
    (static,) = variants._static()
    assert static.name == 'static, eager' and static.run is None
    assert 'channels' in static.why_not
    dense = BenchmarkVariant('dense, eager', 'dense', PlainForward(model))
    rows = measure(model, [dense, static], images, 1, 1)['rows']
    assert [bool(row['why_not']) for row in rows] == [False, True]


def test_a_compaction_that_fails(built, monkeypatch):
    def refuse(*_):
        raise FGCError('it cannot be compacted; leave it.')

    monkeypatch.setattr(timing, 'compact', refuse)
    rows = list(built._compact())
    assert [row.name for row in rows] == [
        'compact, eager', 'compact and dynamic',
    ]  # fmt: skip
    assert all('cannot be compacted' in row.why_not for row in rows)


def test_a_variant_whose_logits_are_nan(built):
    def run(images):
        return torch.full((len(images), 10), NAN)

    row = built._row('x', 'dense', lambda: run, PlainForward(built._model))
    assert row.run is None and 'nan' in row.why_not
