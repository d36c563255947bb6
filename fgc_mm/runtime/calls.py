"""Python functions that compute the CALL ops of a program."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fgc_mm.errors import FGCError
from fgc_mm.runtime.library import CALL

Shape = tuple[int, int, int]
Arrays = list[np.ndarray]
Function = Callable[[Arrays, Arrays], None]
_FIXED, _VALUE = 6, 8  # words before the values, words of each value


def call_shapes(data: Any) -> dict[int, tuple[list[Shape], list[Shape]]]:
    """Shapes of the inputs and outputs of a program's CALL ops.

    Args:
        data: The bytes of a file that the library has accepted.

    Returns:
        By index of the function: shapes (channels, height, width) of the
        inputs and of the outputs.

    Raises:
        FGCError: Two ops of one function have different shapes.
    """
    from fgc_mm.runtime.format import HEADER, Call  # slow to import

    count = int(np.frombuffer(data, '<u8', 1, 16)[0])
    words = np.frombuffer(data, '<i8', count, HEADER).tolist()
    values, sets, ops = words[2:5]
    shapes = [
        tuple(words[at : at + 3])
        for at in range(_FIXED, _FIXED + values * _VALUE, _VALUE)
    ]
    at = _FIXED + values * _VALUE + sets
    found: dict[int, tuple[list[Shape], list[Shape]]] = {}
    for _ in range(ops):
        kind, size = words[at : at + 2]
        if kind == Call.kind:
            _, function, xs, *rest = words[at + 2 : at + 2 + size]
            own = (
                [shapes[number] for number in rest[:xs]],
                [shapes[number] for number in rest[xs + 1 :]],
            )
            if found.setdefault(function, own) != own:
                raise FGCError(
                    f'function {function} of the model is called for '
                    'different shapes, but a function has one; the file is '
                    'damaged: export the model again.'
                )
        at += 2 + size
    return found


class PythonCalls:
    """The functions of one run, and the error of one of them.

    Args:
        functions: Function n computes the CALL ops with number n; it gets
            the inputs and writes into the outputs, which are valid during
            the call only.
        shapes: Shapes of these ops, see :func:`call_shapes`.
    """

    def __init__(
        self,
        functions: Sequence[Function],
        shapes: dict[int, tuple[list[Shape], list[Shape]]],
    ) -> None:
        self.functions, self.shapes = functions, shapes
        self.error: BaseException | None = None
        self.callback = CALL(self._call) if functions else CALL()

    def raise_error(self) -> None:
        """Raise the error of a function, if any."""
        if self.error is not None:
            raise self.error

    def _call(self, _: Any, number: int, xs: Any, ys: Any) -> None:
        if self.error is not None:  # the run has failed already
            return
        try:
            inputs, outputs = self.shapes[number]
            arrays = _views(xs, inputs), _views(ys, outputs)
            for array in arrays[0]:
                array.flags.writeable = False
            self.functions[number](*arrays)
        except BaseException as error:  # raised after the run
            self.error = error


def _views(pointers: Any, shapes: Sequence[Shape]) -> Arrays:
    kind = ctypes.POINTER(ctypes.c_float)
    return [
        np.ctypeslib.as_array(ctypes.cast(pointers[n], kind), shape)
        for n, shape in enumerate(shapes)
    ]
