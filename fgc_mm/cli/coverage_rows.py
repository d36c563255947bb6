"""Rows of the coverage tables: each from its own process, and stored."""

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from mmengine.registry import DefaultScope

from fgc_mm.reliability.atomic_file import write_atomically

Row = TypeVar('Row', bound=Any)  # a dataclass


class StoredRows(Generic[Row]):
    """The rows of a file, one in each line, to which new ones are appended.

    Args:
        path: The file, which may be missing.
        kind: Class of the rows.
    """

    def __init__(self, path: Path, kind: Callable[..., Row]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.rows: dict[str, Row] = {}
        text = path.read_text('utf-8') if path.exists() else ''
        whole, _, cut = text.rpartition('\n')
        if cut:  # the process was killed while it wrote this line
            write_atomically(f'{whole}\n'.encode() if whole else b'', path)
        for line in whole.splitlines():
            key, row = json.loads(line).values()
            self.rows[key] = kind(**row)

    def find(self, key: str, examine: Callable[[], Row]) -> Row:
        """The row of a key; if there is none, it is made and stored."""
        if key not in self.rows:
            self.rows[key] = examine()
            entry = dict(key=key, row=asdict(self.rows[key]))
            with self.path.open('a', encoding='utf-8') as file:
                file.write(json.dumps(entry) + '\n')
        return self.rows[key]


def in_a_process(
    examine: Callable[[Connection], None],
    failed: Callable[[str], Row],
    seconds: float,
    late: str,
) -> Row:
    """The last row that a function sends from a separate process.

    Args:
        examine: Sends rows as they become known.
        failed: Makes the row of a backbone that has failed, for a reason.
        seconds: Time limit for each row.
        late: The reason if there is no row in time.
    """
    context = multiprocessing.get_context('fork')  # imports are inherited
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(examine, failed, writer))
    process.start()
    writer.close()
    row = failed(late)
    try:
        while reader.poll(seconds):
            row = reader.recv()
        return row
    except EOFError:
        process.join(10)  # its pipe is closed: it ends
        died = process.exitcode not in (0, None)
        return failed('its process died') if died else row
    finally:
        process.kill()
        process.join()


def _run(
    examine: Callable[[Connection], None],
    failed: Callable[[str], Row],
    writer: Connection,
) -> None:
    DefaultScope.get_instance('zoo', scope_name='mmpretrain')
    torch.set_num_threads(1)
    try:
        examine(writer)
    except Exception as error:
        writer.send(failed(first_line(error)))


def first_line(error: Exception) -> str:
    """Class and text of an error, in one line."""
    return f'{type(error).__name__}: {error}'.splitlines()[0]
