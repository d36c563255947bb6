"""tools/torchrun.py where its port is in use."""

import socket
import sys

from fgc_mm.cli import torchrun

from ..tools.conftest import TOOLS, error_lines


def test_a_port_that_is_in_use(monkeypatch, capfd):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = [
            '--nnodes=1', '--master_addr=127.0.0.1', f'--master_port={port}',
            '--nproc_per_node=1', str(TOOLS / 'train.py'), 'none.py',
        ]  # fmt: skip
        monkeypatch.setattr(sys, 'argv', ['torchrun.py', *arguments])
        assert torchrun.run() == 2
    (line,) = error_lines(capfd.readouterr().err)
    assert f'port {port} of this machine is in use' in line
    assert 'set PORT' in line
