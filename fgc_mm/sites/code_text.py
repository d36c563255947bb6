"""The code of a class or function as text, without file names."""

import dis
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from types import (
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
)
from typing import Any

import numpy as np
from torch import Tensor

DATA = (
    type(None), bool, int, float, complex, str, bytes,
    Tensor, np.ndarray, np.generic,
)  # fmt: skip
SLOTS = (GetSetDescriptorType, MemberDescriptorType)
# Packages whose classes' attributes are not described.
LIBRARIES = ('torch', 'builtins', 'mmengine', 'mmcv')


def code_text(value: type | FunctionType) -> tuple[str, list[Any]]:
    """The text of the code, and the objects that it refers to.

    The text has the package's version if it is installed. The objects are
    class attributes and the global data that the code reads; for code that is
    not installed (the user's own) also functions, classes and other objects.
    """
    others: list[Any] = []
    texts = [qualified(value), _version(value)]
    for function in _functions(value):
        texts.append(_code(function.__code__))
        others += function.__defaults__ or ()
        others += (function.__kwdefaults__ or {}).values()
        others += _closure_values(function)
        others += _referenced(function)
        if not _installed(function):
            others += vars(function).items()
    if isinstance(value, type):
        others += [b for b in value.__bases__ if not _installed(b)]
        others += _class_attributes(value)
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
        if _package(kind) in ('torch', 'builtins'):
            continue
        for member in map(_unwrapped, vars(kind).values()):
            if isinstance(member, FunctionType):
                yield member


def _unwrapped(member: Any) -> Any:
    """The function of a method, property or wrapped function."""
    if isinstance(member, property):
        return member.fget
    if isinstance(member, cached_property):
        return member.func
    return getattr(member, '__wrapped__', member)


def _class_attributes(value: type) -> Iterator[tuple[str, Any]]:
    """Attributes of a class and its bases that are not methods."""
    for kind in value.__mro__:
        if _package(kind) in LIBRARIES:
            continue
        for name, member in vars(kind).items():
            code = isinstance(_unwrapped(member), (FunctionType, *SLOTS))
            if not code and not _is_special(name):
                yield name, member


def _is_special(name: str) -> bool:
    """Whether Python sets an attribute itself, e.g. to a file's path."""
    dunder = name.startswith('__') and name.endswith('__')
    return dunder or name == '_abc_impl'


def _package(value: type) -> str:
    return value.__module__.partition('.')[0]


def _code(code: CodeType) -> str:
    """Bytecode, names and constants, without file and line numbers."""
    names = code.co_names, code.co_varnames, code.co_freevars
    return f'{code.co_code.hex()} {names} {_constant(code.co_consts)}'


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, tuple):
        return f'{[*map(_constant, value)]}'
    if isinstance(value, frozenset):  # its order differs between processes
        return f'{sorted(map(_constant, value))}'
    return repr(value)


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


def _referenced(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The globals that a function reads, also in modules of the user.

    For a function of an installed package they are data only.
    """
    names = {*_names(function.__code__)}
    spaces = [function.__globals__]
    installed = _installed(function)
    for space in spaces:
        read = names & space.keys()
        if space is function.__globals__ and read and not installed:
            read &= _global_names(function.__code__)
        for name in sorted(read):
            value = space[name]
            if isinstance(value, ModuleType):
                own = not installed and not _installed_module(value.__name__)
                if own and not any(vars(value) is s for s in spaces):
                    spaces.append(vars(value))
            elif not _is_special(name) and (not installed or _is_data(value)):
                yield name, value


def _is_data(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(_is_data, value))
    return isinstance(value, DATA)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@cache
def _global_names(code: CodeType) -> frozenset[str]:
    """The names in the code that are not names of attributes."""
    loaded = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ('LOAD_GLOBAL', 'LOAD_NAME')
    }
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return frozenset(loaded.union(*map(_global_names, inner)))


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
