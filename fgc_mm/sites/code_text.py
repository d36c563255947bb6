"""The code of a class or function as text, without file names."""

import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

PLAIN = (type(None), bool, int, float, str, bytes, tuple)


def code_text(value: type | FunctionType) -> tuple[str, list[Any]]:
    """The text of the code, and the objects that it refers to.

    Args:
        value: A class or function.

    Returns:
        The code as text. For code in an installed package, the name and the
        package's version are included; for other code (the user's own), the
        list has the functions, classes and constants that it refers to.
    """
    others: list[Any] = []
    texts = [qualified(value), _version(value)]
    for function in _functions(value):
        texts.append(_code(function.__code__))
        others += function.__defaults__ or ()
        others += (function.__kwdefaults__ or {}).values()
        others += _closure_values(function)
        if not _installed(function):
            others += _referenced(function)
    if isinstance(value, type):
        others += [b for b in value.__bases__ if not _installed(b)]
        texts += map(qualified, value.__bases__)
    return ' '.join(texts), others


def qualified(value: type | FunctionType) -> str:
    """Qualified name with module."""
    return f'{value.__module__}.{value.__qualname__}'


def _functions(value: type | FunctionType) -> Iterator[FunctionType]:
    """The function itself, or all functions of a class and its bases."""
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
    """Bytecode, names and constants, without file and line numbers."""
    constants = [
        _code(c) if isinstance(c, CodeType) else repr(c)
        for c in code.co_consts
    ]
    names = code.co_names, code.co_varnames, code.co_freevars
    return f'{code.co_code.hex()} {names} {constants}'


def _closure_values(function: FunctionType) -> Iterator[Any]:
    """Values of a closure's cells."""
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # an empty cell
            continue
        if content is not function and not _is_class_cell(function, content):
            yield content


def _is_class_cell(function: FunctionType, content: Any) -> bool:
    """Whether it is the ``__class__`` cell of ``super()``."""
    owner = function.__qualname__.rpartition('.')[0]
    return isinstance(content, type) and content.__qualname__ == owner


def _referenced(function: FunctionType) -> Iterator[Any]:
    """Functions, classes and constants that a function refers to by name."""
    names = set(_names(function.__code__))
    namespaces = [function.__globals__]
    namespaces += [
        vars(value)
        for name in sorted(names & set(function.__globals__))
        if isinstance(value := function.__globals__[name], ModuleType)
        and not _installed_module(value.__name__)
    ]
    for values in namespaces:
        for name in sorted(names & set(values)):
            if isinstance(values[name], (type, FunctionType, *PLAIN)):
                yield values[name]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _installed(value: type | FunctionType) -> bool:
    return _installed_module(value.__module__)


def _installed_module(name: str) -> bool:
    """Whether a module is in the standard library or in site-packages."""
    if name.partition('.')[0] in sys.stdlib_module_names:
        return name != '__main__'
    file = getattr(sys.modules.get(name), '__file__', None) or ''
    return file.startswith(_site_packages())


@cache
def _site_packages() -> tuple[str, ...]:
    return sysconfig.get_path('purelib'), sysconfig.get_path('platlib')


def _version(value: type | FunctionType) -> str:
    package = sys.modules.get(value.__module__.partition('.')[0])
    version = getattr(package, '__version__', '')
    return version if _installed(value) else ''
