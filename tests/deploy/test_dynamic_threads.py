"""Several threads get the same results from a dynamic model as one."""

import copy
import os
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event

import pytest
import torch

import fgc_mm.deploy.dynamic.calibrate as calibration
import fgc_mm.deploy.dynamic.model as module
from fgc_mm.deploy import to_dynamic
from fgc_mm.deploy.dynamic.model import DynamicBackbone


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


@torch.no_grad()
def test_weights_that_are_loaded_while_a_program_is_made(
    classifier, pictures, monkeypatch
):
    """The program of the old weights is dropped, too."""
    model, _ = classifier()
    image = pictures(16)[:1]
    dynamic = to_dynamic(model, image, backend='torch')
    dynamic.backbone._programs.clear()
    other = copy.deepcopy(model)
    # not of the head, which may run after the weights are loaded
    for parameter in other.backbone.parameters():
        parameter.mul_(1.5)
    checked, go_on = Event(), Event()
    check = DynamicBackbone._check_program

    def slow_check(*args):
        problem = check(*args)
        checked.set()
        assert go_on.wait(60)
        return problem

    monkeypatch.setattr(DynamicBackbone, '_check_program', slow_check)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(dynamic, image)
        assert checked.wait(60)
        loaded = pool.submit(dynamic.load_state_dict, other.state_dict())
        wait([loaded], timeout=0.5)  # it waits for the program
        go_on.set()
        torch.testing.assert_close(
            first.result(60), model(image), atol=1e-4, rtol=1e-4
        )
        loaded.result(60)
    torch.testing.assert_close(
        dynamic(image), other(image), atol=1e-4, rtol=1e-4
    )
    assert dynamic.program(image) is not None


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_fork_while_a_program_is_made():
    """The child's lock would be held by a thread that it does not have."""
    begun, end = Event(), Event()

    def hold():
        with module.BUILD_LOCK:
            begun.set()
            end.wait()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        begun.wait()
        child = os.fork()
        if not child:
            free = module.BUILD_LOCK.acquire(timeout=20)
            os._exit(0 if free else 1)
        code = os.waitpid(child, 0)[1]
        assert not module.BUILD_LOCK.acquire(timeout=0.01)  # the parent's
        end.set()
    assert code == 0
