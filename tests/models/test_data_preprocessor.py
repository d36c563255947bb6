"""The same batch as upstream's, without a wait for the device."""

import sys
from pathlib import Path

import pytest
import torch
from mmpretrain.models.utils.data_preprocessor import ClsDataPreprocessor
from mmpretrain.structures import DataSample

from fgc_mm.models import NonBlockingDataPreprocessor

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'
NORMS = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True)


def batch(labels=(3, 0, 2)):
    images = torch.arange(3 * 3 * 4 * 4).view(3, 3, 4, 4).byte()
    samples = [DataSample().set_gt_label(label) for label in labels]
    return dict(inputs=images, data_samples=samples)


def counted(kind, data):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from operation_counter import OperationCounter
    finally:
        sys.path.remove(str(BENCHMARKS))
    model = kind(**NORMS).to('meta')
    with OperationCounter('meta') as counter:
        out = model(data, True)
    return counter, out


@pytest.mark.parametrize('labels', [(3, 0, 2), ([1, 2], [0], [3])])
def test_the_same_as_upstreams(labels):
    one, other = (
        kind(**NORMS)(batch(labels), True)
        for kind in (ClsDataPreprocessor, NonBlockingDataPreprocessor)
    )
    assert torch.equal(one['inputs'], other['inputs'])
    for a, b in zip(one['data_samples'], other['data_samples'], strict=True):
        assert torch.equal(a.gt_label, b.gt_label)


@pytest.mark.parametrize('labels', [(3, 0, 2), ([1, 2], [0], [3])])
def test_no_copy_that_waits(labels):
    theirs, _ = counted(ClsDataPreprocessor, batch(labels))
    ours, out = counted(NonBlockingDataPreprocessor, batch(labels))
    assert (theirs.copies, ours.copies) == (2, 0)
    assert not ours.reads.total()
    shapes = [sample.gt_label.shape for sample in out['data_samples']]
    assert shapes == [x.gt_label.shape for x in batch(labels)['data_samples']]
    assert all(x.gt_label.is_meta for x in out['data_samples'])


def test_samples_without_labels():
    data = batch()
    data['data_samples'] = [DataSample() for _ in range(3)]
    _, out = counted(NonBlockingDataPreprocessor, data)
    assert out['inputs'].is_meta and len(out['data_samples']) == 3
    _, out = counted(NonBlockingDataPreprocessor, dict(inputs=data['inputs']))
    assert out['data_samples'] is None


@pytest.mark.parametrize(('device', 'waits'), [('cpu', True), ('meta', False)])
def test_a_copy_to_the_cpu_waits(monkeypatch, device, waits):
    """Images on a GPU and a model on the CPU: they are read at once."""
    asked = []
    to = torch.Tensor.to

    def noted(tensor, *args, **kwargs):
        asked.append(kwargs.get('non_blocking'))
        return to(tensor, *args, **kwargs)

    model = NonBlockingDataPreprocessor(**NORMS).to(device)
    monkeypatch.setattr(torch.Tensor, 'to', noted)
    model(dict(inputs=batch()['inputs']))
    assert asked and (True not in asked) == waits
