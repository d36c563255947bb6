import multiprocessing
import os
import sys
from multiprocessing.connection import Client
from multiprocessing.reduction import DupFd
from multiprocessing.resource_sharer import _resource_sharer

import pytest

from fgc_mm.cli.run_tool import run_tool

FORK = multiprocessing.get_context('fork')


def a_command_that_ends(pipe):
    """What a worker sees of it: a connection that closes at once."""
    DupFd(os.pipe()[0])  # as for a tensor; starts the thread
    key = multiprocessing.current_process().authkey
    with Client(_resource_sharer._address, authkey=key):
        pass
    # served after the first connection; ends the thread
    with Client(_resource_sharer._address, authkey=key) as connection:
        connection.send(None)
        _resource_sharer._thread.join(30)
    pipe.send(not _resource_sharer._thread.is_alive())


def worker_text(capfd):
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=a_command_that_ends, args=(theirs,))
    process.start()
    assert ours.recv()
    process.join()
    return capfd.readouterr().err


@pytest.fixture
def hook(monkeypatch):
    monkeypatch.setattr(sys, 'excepthook', sys.__excepthook__)


@pytest.mark.usefixtures('hook')
def test_a_worker_whose_command_has_ended_prints_nothing(capfd):
    assert 'EOFError' in worker_text(capfd)
    assert run_tool(lambda: None) == 0
    assert worker_text(capfd) == ''


@pytest.mark.usefixtures('hook')
def test_other_errors_are_reported(capfd):
    run_tool(lambda: None)
    sys.excepthook(EOFError, EOFError('of the command itself'), None)
    assert 'of the command itself' in capfd.readouterr().err
