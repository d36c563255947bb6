"""The code of a class or function, as text that does not know its file."""

import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

PLAIN = (type(None), bool, int, float, str, bytes, tuple)


def code_text(value: type | FunctionType) -> tuple[str, list[Any]]:
    """The code, and the objects that it refers to.

    Args:
        value: A class or function.

    Returns:
        For what lies in an installed package, the name and the package's
        version besides the code; for other code (the user's own) also the
        functions, classes and constants that it refers to.
    """
    others: list[Any] = []
    texts = [qualified(value), _version(value)]
    for function in _functions(value):
        texts.append(_code(function.__code__))
        others += function.__defaults__ or ()
        others += (function.__kwdefaults__ or {}).values()
        others += _enclosed(function)
        if not _installed(function):
            others += _referred(function)
    if isinstance(value, type):
        others += [b for b in value.__bases__ if not _installed(b)]
        texts += map(qualified, value.__bases__)
    return ' '.join(texts), others


def qualified(value: type | FunctionType) -> str:
    """Module and name."""
    return f'{value.__module__}.{value.__qualname__}'


def _functions(value: type | FunctionType) -> Iterator[FunctionType]:
    """Itself, or the functions of a class and those it inherits."""
    if isinstance(value, FunctionType):
        yield value
        return
    for kind in value.__mro__:
        if kind.__module__.partition('.')[0] in ('torch', 'builtins'):
            continue
        for member in vars(kind).values():
            member = getattr(member, '__func__', member)
            member = getattr(member, 'fget', member)
            if isinstance(member, FunctionType):
                yield member


def _code(code: CodeType) -> str:
    """Instructions, names and constants; no file, no line."""
    constants = [
        _code(c) if isinstance(c, CodeType) else repr(c)
        for c in code.co_consts
    ]
    names = code.co_names, code.co_varnames, code.co_freevars
    return f'{code.co_code.hex()} {names} {constants}'


def _enclosed(function: FunctionType) -> Iterator[Any]:
    """What a closure has taken from around it."""
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not yet filled
            continue
        if content is not function and not _is_class_cell(function, content):
            yield content


def _is_class_cell(function: FunctionType, content: Any) -> bool:
    """Whether it is the class for ``super()``, which is described already."""
    owner = function.__qualname__.rpartition('.')[0]
    return isinstance(content, type) and content.__qualname__ == owner


def _referred(function: FunctionType) -> Iterator[Any]:
    """Functions, classes and constants that a function finds by name."""
    names = set(_names(function.__code__))
    spaces = [function.__globals__]
    spaces += [
        vars(value)
        for name in sorted(names & set(function.__globals__))
        if isinstance(value := function.__globals__[name], ModuleType)
        and not _installed_module(value.__name__)
    ]
    for space in spaces:
        for name in sorted(names & set(space)):
            if isinstance(space[name], (type, FunctionType, *PLAIN)):
                yield space[name]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _installed(value: type | FunctionType) -> bool:
    return _installed_module(value.__module__)


def _installed_module(name: str) -> bool:
    """Whether it is Python's own, or in a package that pip installed."""
    if name.partition('.')[0] in {*sys.stdlib_module_names, 'builtins'}:
        return name != '__main__'
    file = getattr(sys.modules.get(name), '__file__', None) or ''
    places = {sysconfig.get_path(kind) for kind in ('purelib', 'platlib')}
    return any(file.startswith(place) for place in places)


def _version(value: type | FunctionType) -> str:
    package = sys.modules.get(value.__module__.partition('.')[0])
    version = getattr(package, '__version__', '')
    return version if _installed(value) else ''
