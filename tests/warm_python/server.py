"""A process that has imported torch and mmpretrain, and forks on request.

    python server.py SOCKET OWNER

Tests start several hundred Python processes. Each would import torch, mmcv,
mmengine and mmpretrain for 6 to 10 seconds; a fork of this process has them.
A request (from client.py) names the script, its arguments, the folder and
the environment, and brings the standard streams along. The child runs the
script as a new interpreter would and has its own process group. Signals that
the client receives reach the child; a client that dies takes it along. The
server ends with the process OWNER. ``fgc_mm`` itself is not imported here, so
that the child takes that of its own checkout.
"""

from __future__ import annotations

import array
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import child

PRELOADED = (
    'matplotlib.backends.backend_agg',
    'matplotlib.pyplot',
    'mmcv',
    'mmengine.runner',
    'mmpretrain.apis',
    'mmpretrain.datasets',
    'mmpretrain.engine',
    'mmpretrain.evaluation',
    'mmpretrain.models',
    'mmpretrain.visualization',
    'rich.console',
    'rich.progress',
    'rich.table',
    'scipy.stats',
    'setuptools',
    'sklearn.datasets',
    'sklearn.model_selection',
    'torch',
    'torch.distributed.run',
)
STREAMS = 3


@dataclass
class Job:
    """A child and the client that waits for it."""

    pid: int
    pidfd: int
    client: socket.socket


def main() -> None:
    """Listen until the owner ends."""
    owner = os.pidfd_open(int(sys.argv[2]))
    for name in PRELOADED:
        importlib.import_module(name)
    with suppress(ImportError):  # what mmengine logs of the environment
        importlib.import_module('pkg_resources')
    # yapf lays out the config's text for every checkpoint, which is most of
    # the time of a tiny run; the fork imports it when it is called
    for name in ('mmengine.config.config', 'yapf.yapflib.yapf_api'):
        importlib.import_module(name).FormatCode = unformatted
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # the socket accepts connections as soon as it exists
    path = Path(sys.argv[1])
    unready = path.with_suffix('.new')
    listener.bind(str(unready))
    listener.listen(64)
    unready.rename(path)
    Server(listener, owner).serve()


def unformatted(text: str, **_: Any) -> tuple[str, bool]:
    """What yapf's FormatCode returns, the text as it is."""
    return text, True


class Server:
    """Accepts requests, passes signals on, reports exit codes."""

    def __init__(self, listener: socket.socket, owner: int) -> None:
        self.listener = listener
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.selector.register(owner, selectors.EVENT_READ, self.leave)
        self.jobs: list[Job] = []

    def serve(self) -> None:
        """Handle events for ever."""
        while True:
            for key, _ in self.selector.select():
                call, *rest = (
                    key.data if isinstance(key.data, tuple) else (key.data,)
                )
                call(*rest)

    def leave(self) -> None:
        """Take all children along."""
        for job in self.jobs:
            os.kill(job.pid, signal.SIGKILL)
        os._exit(0)

    def accept(self) -> None:
        """Fork a child for a request."""
        client, _ = self.listener.accept()
        request, streams = receive(client)
        if request is None:
            client.close()
            return
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self.selector.close()
            self.listener.close()
            client.close()
            for job in self.jobs:
                os.close(job.pidfd)
                job.client.close()
            die_with(parent)
            child.run(request, streams)
        for stream in streams:
            os.close(stream)
        job = Job(pid, os.pidfd_open(pid), client)
        self.jobs.append(job)
        read = selectors.EVENT_READ
        self.selector.register(job.pidfd, read, (self.ended, job))
        self.selector.register(client, read, (self.signalled, job))

    def signalled(self, job: Job) -> None:
        """The client has received a signal, or has died."""
        if job not in self.jobs:  # it has just ended
            return
        try:
            message = job.client.recv(4)
        except OSError:
            message = b''
        number = int.from_bytes(message, 'little') or signal.SIGKILL
        os.kill(job.pid, number)
        if not message:
            self.selector.unregister(job.client)

    def ended(self, job: Job) -> None:
        """Report how the child ended."""
        _, status = os.waitpid(job.pid, 0)
        self.selector.unregister(job.pidfd)
        os.close(job.pidfd)
        if job.client in self.selector.get_map():
            self.selector.unregister(job.client)
        with suppress(OSError):  # the client has died
            job.client.send(status.to_bytes(4, 'little'))
        job.client.close()
        self.jobs.remove(job)


def receive(client: socket.socket) -> tuple[Any, list[int]]:
    """The request and its three streams; (None, []) if there is none."""
    space = socket.CMSG_SPACE(STREAMS * array.array('i').itemsize)
    message, ancillary, _, _ = client.recvmsg(1 << 20, space)
    if not message:
        return None, []
    streams = array.array('i')
    for _, _, data in ancillary:
        streams.frombytes(data)
    return json.loads(message), list(streams)


def die_with(parent: int) -> None:
    """SIGKILL for this process when its parent is gone (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


if __name__ == '__main__':
    main()
