"""The log of a command has no line of a thousand characters."""

import logging

from mmengine.config import Config
from mmengine.logging import MMLogger

from fgc_mm.cli.command_runner import (
    LONGEST,
    TITLE,
    CommandRunner,
    wrap_lines,
)


def test_the_environment_is_logged_in_short_lines(tmp_path):
    runner = CommandRunner.__new__(CommandRunner)
    file = tmp_path / 'run.log'
    runner.logger = MMLogger('environment', log_file=str(file))
    runner._distributed, runner._launcher = False, 'none'
    runner._randomness_cfg, runner._rank, runner._world_size = {}, 0, 1
    runner._seed, runner.cfg = 0, Config(dict(long='x' * 200))
    runner._log_env({})
    lines = file.read_text().splitlines()
    assert any('x' * 200 in line for line in lines)
    lines = [line for line in lines if 'xxx' not in line]
    assert any('Build settings' in line for line in lines)
    assert max(map(len, lines)) <= LONGEST
    assert not runner.logger.filters


def test_short_lines_and_indents_are_unchanged():
    text = f'{TITLE}\n\n  b: {"word " * 100}\n    c'
    record = logging.LogRecord('x', 20, 'x', 1, text, None, None)
    assert wrap_lines(record)
    first, second, *wrapped, last = record.msg.split('\n')
    assert (first, second, last) == (TITLE, '', '    c')
    assert wrapped[0].startswith('  b: word')
    assert all(line.startswith('      word') for line in wrapped[1:])
