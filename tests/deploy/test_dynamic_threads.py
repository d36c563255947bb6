"""Several threads get the same results from a dynamic model as one."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import fgc_mm.deploy.dynamic.calibrate as calibration
from fgc_mm.deploy import to_dynamic


@pytest.fixture(autouse=True)
def all_sites_pay(monkeypatch):
    monkeypatch.setattr(calibration, 'REPEATS', 1)
    monkeypatch.setattr(calibration, '_is_faster', lambda *_: True)


@pytest.fixture
def busy_threads():
    """Threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@torch.no_grad()
def answer(model, images):
    feats, records = model._extract_gated(images)
    return [model.head(feats), *(r.mask for r in records)]


@pytest.mark.usefixtures('busy_threads')
@pytest.mark.parametrize('executor', ['program', 'modules'])
def test_in_four_threads(classifier, pictures, executor):
    model, _ = classifier()
    images = pictures(16)
    dynamic = to_dynamic(model, images[:1], backend='torch')
    dynamic.backbone.executor = executor
    # single images skip channels, while a batch of two computes them all
    dynamic.backbone.batch = 'batch'
    asked = [*images.split(1), images[:2], images[3:5]]
    want = [answer(dynamic, one) for one in asked]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda one: answer(dynamic, one), asked * 6))
    for number, one in enumerate(got):
        pairs = zip(one, want[number % len(asked)], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), number
