"""Dynamic models with images of several sizes, and with nan."""

import pytest
import torch
from torch import nn

from fgc_mm.deploy import to_dynamic
from fgc_mm.deploy.dynamic import calibrate
from fgc_mm.deploy.dynamic import model as modelling


@pytest.fixture
def made(classifier, monkeypatch):
    """A dynamic model, and the sizes of the programs that it makes."""
    model, _ = classifier()
    dynamic = to_dynamic(model, torch.randn(2, 3, 16, 16))
    backbone, sizes = dynamic.backbone, []
    # the program runs, whichever is faster
    backbone.executor = modelling.PROGRAM
    own = backbone._make_program

    def make(captured, *arguments):
        program = own(captured, *arguments)
        sizes.append(program.graph.nodes[0].shape[2:])
        return program

    monkeypatch.setattr(backbone, '_make_program', make)
    return model, dynamic, sizes


def image(height, width=16):
    return torch.randn(1, 3, height, width)


def test_many_sizes_keep_their_programs(made):
    model, dynamic, sizes = made
    for _ in range(20):
        for height in range(16, 16 + modelling.MAX_SIZES + 3):
            x = image(height)
            assert torch.allclose(dynamic(x), model(x), atol=1e-3)
    assert len(set(sizes)) == len(sizes) <= modelling.MAX_SIZES


def test_an_unused_program_is_replaced(made):
    _, dynamic, sizes = made
    for height in range(16, 16 + modelling.MAX_SIZES):
        dynamic(image(height))
    assert dynamic.program(image(50)) is None
    for _ in range(modelling.IDLE_CALLS + modelling.MISSING_CALLS):
        dynamic(image(16))
        dynamic(image(50))
    # the whole network, or at first the backbone alone
    assert sizes.count((50, 16)) in (1, 2)
    assert dynamic.program(image(50)) is not None
    assert sizes.count((16, 16)) <= 1
    made = {size for size, *_ in dynamic.backbone._programs}
    assert len(made) == modelling.MAX_SIZES


def test_an_image_with_nan_decides_nothing(made):
    model, dynamic, _ = made
    x = image(24)
    x[0, 0, 3, 3] = torch.nan
    assert torch.equal(dynamic(x).isnan(), model(x).isnan())
    assert dynamic.program(image(24)) is not None


def test_the_report_names_sizes_without_a_program(made, monkeypatch):
    _, dynamic, _ = made
    monkeypatch.setattr(
        dynamic.backbone, '_make_program', lambda *_: 'it is a test'
    )
    dynamic(image(24))
    assert (
        'images of size 3x24x16 run masked, since it is a test.'
        in dynamic.dynamic_report()['notes']
    )


def test_programs_of_the_calibration_are_dropped(classifier, monkeypatch):
    monkeypatch.setattr(calibrate, '_is_faster', lambda *_: True)
    dynamic = to_dynamic(classifier()[0], torch.randn(2, 3, 16, 16))
    backbone = dynamic.backbone
    assert backbone._programs
    for *_, gated, dense in backbone._programs:
        assert gated and dense == tuple(backbone.dense)
    assert not backbone._captured


def test_many_thresholds_of_one_size(made):
    model, dynamic, _ = made
    x = image(16)
    for number in range(12):
        for gates in (model.backbone.gates, dynamic.backbone.gates):
            gates['layer1-0-conv1'].threshold = 0.3 + 0.02 * number
        assert dynamic.program(x) is not None
        assert torch.allclose(dynamic(x), model(x), atol=1e-3)
    assert len(dynamic.backbone._programs) <= modelling.MAX_PROGRAMS


class Reading(nn.Module):
    """A head that reads a value, so that it cannot be captured."""

    def forward(self, feats):
        return feats[-1].mean((2, 3)) * float(feats[-1].sum() > 0)


def test_a_backbone_with_a_program_does_not_run_masked(classifier):
    model, _ = classifier()
    model.neck, model.head = None, Reading()
    dynamic = to_dynamic(model, torch.randn(2, 3, 16, 16))
    dynamic.backbone.executor = modelling.PROGRAM
    dynamic(image(16))
    assert not isinstance(dynamic.backbone.program(image(16)), str)
    assert not dynamic.dynamic_report()['notes']
