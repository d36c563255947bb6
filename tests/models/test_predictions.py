"""Predictions are copied to the host in few transfers."""

import sys
from pathlib import Path

import torch
from mmpretrain.structures import DataSample

from fgc_mm.models.predictions import _is_batch, to_host

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'


def samples(device, count=6):
    made = []
    for index in range(count):
        sample = DataSample(metainfo=dict(sample_idx=index))
        sample.set_gt_label(torch.tensor([index], device=device))
        sample.set_pred_score(torch.rand(4, device=device))
        sample.set_pred_label(torch.tensor([1], device=device))
        made.append(sample)
    return made


def test_one_copy_for_each_field():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from operation_counter import OperationCounter
    finally:
        sys.path.remove(str(BENCHMARKS))
    batch = samples('meta')
    with OperationCounter('meta') as counter:
        to_host(batch)
    assert dict(+counter.reads) == {'_to_copy': 3}
    for sample in batch:
        assert sample.pred_score.device.type == 'cpu'
        assert sample.pred_score.shape == (4,)
        assert sample.gt_label.shape == sample.pred_label.shape == (1,)
        assert sorted(sample.keys()) == [
            'gt_label',
            'pred_label',
            'pred_score',
        ]


def test_tensors_on_the_cpu_are_not_copied():
    batch = samples('cpu')
    before = [(s.pred_score, s.gt_label) for s in batch]
    to_host(batch)
    for sample, (score, label) in zip(batch, before):
        assert sample.pred_score is score and sample.gt_label is label
    to_host([])


def test_fields_that_are_no_batch_stay():
    labels = [torch.zeros(n, device='meta') for n in (1, 3)]
    assert not _is_batch(labels) and not _is_batch([labels[0], None])
    assert not _is_batch([]) and _is_batch(labels[:1] * 2)
