"""The FLOPs evaluator against numbers computed by hand."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmpretrain.registry import MODELS as MMPRETRAIN
from mmpretrain.structures import DataSample

import fgc_mm.evaluation
from fgc_mm.errors import FGCError
from fgc_mm.evaluation import DynamicMACs


def report(samples, sizes=None):
    """Results of the metric after batches of these sizes."""
    metric, start = DynamicMACs(), 0
    for size in sizes or [len(samples)]:
        metric.process(None, samples[start : start + size])
        start += size
    return metric.evaluate(len(samples))


def test_numbers_by_hand(made):
    # dense: 600 + 600 + 300 and the head's 10; the gate costs 15
    samples = [
        made.prediction([1, 1, 1, 1, 1]),  # 600 + 600 + 300 + 25
        made.prediction([1, 0, 1, 0, 0]),  # 300 + 100 + 100 + 25
        made.prediction([0, 0, 0, 0, 0]),  # 0 + 0 + 0 + 25
        made.prediction([1, 1, 0, 1, 0]),  # 600 + 200 + 100 + 25
    ]
    numbers = report(samples)
    assert numbers['macs/mean'] == (1525 + 525 + 25 + 925) / 4 == 750
    assert numbers['macs/dense'] == 1510
    assert numbers['macs/p50'] == (525 + 925) / 2
    assert numbers['macs/p95'] == pytest.approx(925 + 0.85 * 600)
    assert numbers['macs/pruning_ratio'] == pytest.approx(
        100 * (1 - 750 / 1510)
    )
    assert numbers['macs/keep_ratio'] == (5 + 2 + 0 + 3) / 20
    # the published counting: no head on either side
    assert numbers['macs/pruning_ratio_fgc_pr'] == pytest.approx(
        100 * (1 - 740 / 1500)
    )
    assert set(numbers) == {
        f'macs/{name}'
        for name in ('mean', 'dense', 'p50', 'p95', 'pruning_ratio',
                     'keep_ratio', 'pruning_ratio_fgc_pr',
                     'pruning_ratio_ftwt')
    }  # fmt: skip


def test_batches_do_not_matter(made):
    samples = made.predictions(7)
    assert report(samples) == report(samples, [3, 3, 1])
    macs = [float(s['macs']) for s in samples]
    for name, percent in (('p50', 50), ('p95', 95)):
        want = np.percentile(macs, percent)
        assert report(samples)[f'macs/{name}'] == pytest.approx(want)


def test_padding_is_cut_off(made):
    samples = made.predictions(5)
    metric = DynamicMACs()
    metric.process(None, [*samples, samples[0], samples[1]])
    assert metric.evaluate(5) == report(samples)


def test_two_ranks_report_the_metrics_of_one(two_ranks, made):
    want = report(made.predictions(7))
    for result in two_ranks:
        assert result['metrics'] == pytest.approx(want)


def test_images_of_two_shapes(made):
    half = made.prediction([1, 0, 1, 0, 0])
    large = made.prediction([1, 1, 1, 1, 1], made.LARGE)
    one = report([half, large], [1, 1])
    other = report([large, half], [1, 1])
    assert one == other
    assert one['macs/mean'] == (525 + 4 * 1500 + 25) / 2
    assert one['macs/dense'] == (1510 + 6010) / 2
    assert one['macs/pruning_ratio'] == pytest.approx(
        100 * (1 - (525 + 6025) / 7520)
    )
    assert one['macs/pruning_ratio_fgc_pr'] == pytest.approx(
        100 * (1 - (515 + 6015) / 7500)
    )


def test_an_evaluator_can_be_used_again(made):
    metric, samples = DynamicMACs(), made.predictions(4)
    for part in (samples[:2], samples[2:]):
        metric.process(None, part)
        assert metric.evaluate(2) == report(part)


def test_the_table_of_sites_is_logged(made, monkeypatch):
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'info', lines.append)
    report(
        [made.prediction([1, 0, 1, 0, 1]), made.prediction([1, 0, 0, 0, 1])]
    )
    rows = [
        line.replace('│', ' ').split()
        for line in lines[0].splitlines()
        if '│' in line
    ]
    assert rows == [
        ['a', '2', '0.500', '0.500', '0.500'],
        ['b', '3', '0.500', '0.333', '0.333'],
    ]


# with real models


@pytest.fixture(scope='module')
def model(tiny):
    return tiny.build().eval()


def batch(tiny, count=3):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, 16, 16, generator=generator) * 255
    return dict(inputs=list(images), data_samples=tiny.samples([1] * count))


def test_a_gated_classifier_through_the_evaluator(model, tiny):
    evaluator = Evaluator([dict(type='fgc_mm.DynamicMACs')])
    assert fgc_mm.evaluation
    with torch.no_grad():
        outputs = model.test_step(batch(tiny))
    evaluator.process(outputs)
    numbers = evaluator.evaluate(3)
    macs = [sample.macs.item() for sample in outputs]
    opened = torch.stack([sample.gate_masks for sample in outputs])
    table = model.macs_table((3, 16, 16))
    assert numbers['macs/mean'] == pytest.approx(np.mean(macs))
    assert numbers['macs/dense'] == table.dense
    assert numbers['macs/keep_ratio'] == pytest.approx(
        opened.double().mean().item()
    )


@pytest.mark.parametrize('views', [1, 2])
def test_merged_views_are_refused(model, tiny, views):
    tta = MMPRETRAIN.build(dict(type='AverageClsScoreTTA', module=model))
    data = [batch(tiny) for _ in range(views)]
    data = {key: [part[key] for part in data] for key in data[0]}
    with torch.no_grad():
        merged = tta.test_step(data)
    with pytest.raises(FGCError, match=r'test-time augmentation.*--tta'):
        DynamicMACs().process(None, [sample.to_dict() for sample in merged])


def test_a_dense_classifier_is_refused():
    sample = DataSample().set_pred_score(torch.rand(10))
    with pytest.raises(FGCError, match=r'no MACs; .*\.GatedModel\.$'):
        DynamicMACs().process(None, [sample.to_dict()])
