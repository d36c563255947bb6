"""The Runner of the commands, with short lines in its log."""

import logging
from pathlib import Path
from textwrap import wrap

from mmengine.dist import master_only
from mmengine.runner import Runner

from fgc_mm.reliability.work_dir_lock import WorkDirLock

LONGEST = 160  # characters of a line
TITLE = 'System environment:'


class CommandRunner(Runner):
    """mmengine's Runner, which wraps long lines about the environment.

    torch's build settings are one line of more than a thousand characters.
    """

    @master_only
    def dump_config(self) -> None:
        """As in mmengine, unless another run uses the work dir."""
        WorkDirLock().acquire(self.work_dir)
        super().dump_config()

    def _log_env(self, env_cfg: dict) -> None:
        self.logger.addFilter(wrap_lines)
        try:
            super()._log_env(env_cfg)
        finally:
            self.logger.removeFilter(wrap_lines)


class TestRunner(CommandRunner):
    """Writes the config of a test beside its log.

    In the work dir it would replace the config of the training.
    """

    __test__ = False  # pytest collects classes of this name

    @master_only
    def dump_config(self) -> None:
        """As in mmengine, in another folder."""
        name = Path(self.cfg.filename or 'config.py').name
        self.cfg.dump(Path(self.log_dir, name))


def wrap_lines(record: logging.LogRecord) -> bool:
    """Wraps long lines about the environment; keeps every record."""
    text = str(record.msg)
    if TITLE not in text:  # the config, which users may copy
        return True
    lines = text.split('\n')
    record.msg = '\n'.join(part for line in lines for part in _parts(line))
    return True


def _parts(line: str) -> list[str]:
    if len(line) <= LONGEST:
        return [line]
    indent = ' ' * (len(line) - len(line.lstrip()))
    return wrap(line, LONGEST, subsequent_indent=f'{indent}    ')
