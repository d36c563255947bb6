"""A hash of everything that the sites of a network depend on."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import _lru_cache_wrapper, cache, partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fgc_mm.sites.code_text import code_text, qualified
from fgc_mm.sites.layer_channels import mixes_channels

PLAIN = (
    type(None), bool, int, float, complex, str, bytes,
    torch.dtype, torch.device, torch.Size,
)  # fmt: skip
# Attributes that a search does not use: training mode, initialisation,
# state-dict hooks.
IGNORED = (
    'training', 'init_cfg', '_is_init', '_params_init_info', '_parameters',
    '_buffers', '_modules', '_non_persistent_buffers_set', '_state_dict',
    '_load_state_dict', '_backward', '_full_backward', '_is_full_backward',
)  # fmt: skip
# What determines the result of a call.
CALLED = {
    MethodType: ('__func__', '__self__'),
    BuiltinFunctionType: ('__name__', '__self__'),
    partial: ('func', 'args', 'keywords'),
    _lru_cache_wrapper: ('__wrapped__',),
}
REGISTRY = 'mmengine.registry.registry.Registry'
RANDOM = ('running_mean', 'running_var', 'num_batches_tracked')


def network_fingerprint(
    backbone: nn.Module, options: Mapping[str, Any]
) -> str | None:
    """A hash of the network, its code and the search options.

    It covers the modules with their attributes and shapes, the code and
    attributes of their classes, the functions and global values that the
    code names, and the code of the search. Like the search, it does not
    depend on trained weights. Environment variables and files that the code
    reads are not covered.

    Returns:
        64 hexadecimal digits; ``None`` for a network that uses an object
        that cannot be pickled, which has to be searched every time.
    """
    digest = hashlib.sha256()
    try:
        for part in _Description(backbone).parts():
            digest.update(part.encode() + b'\n')
    except (_NotDescribable, RecursionError):  # a list that contains itself
        return None
    chosen = sorted((k, str(v)) for k, v in options.items())
    digest.update(f'{chosen} {torch.__version__} {_own_code()}'.encode())
    return digest.hexdigest()


class _NotDescribable(Exception):
    """A value that cannot be described."""


class _Description:
    """Everything in a network that a search may depend on, as text."""

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._names = {m: name for name, m in backbone.named_modules()}
        self._seen: set[Any] = set()
        # by id: number of the object, and the object, which keeps its id
        self._objects: dict[int, tuple[int, Any]] = {}

    def parts(self) -> Iterator[str]:
        """One text per module, attribute and tensor."""
        for module, name in self._names.items():
            children = [
                (key, self._names.get(child))
                for key, child in module._modules.items()
            ]
            yield f'{name}: {children} {self._code(type(module))}'
            for key, value in vars(module).items():
                if key.startswith('_forward'):  # hooks, by a running id
                    value = [*value.values()]
                if not key.startswith(IGNORED):
                    yield f'{key}={self._text(value)}'
            for key, value in module._parameters.items():
                yield f'{key}: {_weights(module, value)}'
            for key, value in module._buffers.items():
                drawn = value is None or key in RANDOM
                yield f'{key}: {_shape(value) if drawn else _numbers(value)}'

    def _text(self, value: Any) -> str:
        if isinstance(value, nn.Module):
            if value not in self._names:
                raise _NotDescribable
            return f'module {self._names[value]}'
        if isinstance(value, Tensor):
            return _numbers(value)
        if isinstance(value, Enum):  # its repr may contain an address
            return self._text((type(value), value.name))
        if isinstance(value, PLAIN):
            return repr(value)
        return self._contents(value)

    def _contents(self, value: Any) -> str:
        """Describe a container, or something that is called."""
        if isinstance(value, Mapping):
            pairs = [part for pair in value.items() for part in pair]
            return _combined('mapping', map(self._text, pairs))
        if isinstance(value, (tuple, list, set, frozenset)):
            texts = map(self._text, value)
            ordered = isinstance(value, (tuple, list))
            return _combined('list', texts if ordered else sorted(texts))
        if isinstance(value, (type, FunctionType)):
            return self._code(value)
        if isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            if isinstance(owner, (type, ModuleType, type(None))):
                return f'{value.__module__}.{value.__qualname__}'
        for kind, names in CALLED.items():
            if isinstance(value, kind):
                return self._text([getattr(value, name) for name in names])
        return self._object(value)

    def _object(self, value: Any) -> str:
        """Describe an object by its class and what pickle would store."""
        if id(value) in self._objects:
            return f'object {self._objects[id(value)][0]}'
        self._objects[id(value)] = len(self._objects), value
        if (kind := qualified(type(value))) == REGISTRY:
            return f'{kind} {value.scope} {value.name}'  # not its classes
        try:
            stored = value.__reduce_ex__(4)
        except Exception:  # whatever the object's class raises
            raise _NotDescribable from None
        if isinstance(stored, str):
            return f'{kind} {stored}'
        function, arguments, *state = stored
        state[1:] = [[*items] for items in state[1:3] if items is not None]
        return self._text((function, arguments, state))

    def _code(self, value: type | FunctionType) -> str:
        """Describe a class or function and what it refers to, once."""
        if value in self._seen:
            return qualified(value)
        self._seen.add(value)
        text, others = code_text(value)
        return f'{text} {[self._text(other) for other in others]}'


def _combined(kind: str, texts: Iterable[str]) -> str:
    """One text for several; its length does not grow with their number."""
    digest = hashlib.sha256(repr([*texts]).encode())
    return f'{kind} {digest.hexdigest()}'


def _weights(module: nn.Module, value: Tensor | None) -> str:
    """Which weights of a layer are zero; a search replaces the others."""
    if value is None:
        return ''
    if is_lazy(value) or value.is_meta:
        raise _NotDescribable
    if not mixes_channels(module):
        return _shape(value)
    zeros = value.detach() == 0
    drawn = zeros.float().mean() < 0.01  # random weights have few zeros
    return f'{_shape(value)} {"" if drawn else _numbers(zeros)}'


def _shape(value: Tensor | None) -> str:
    return '' if value is None else f'{tuple(value.shape)} {value.dtype}'


def _numbers(value: Tensor) -> str:
    if value.is_meta or value.layout != torch.strided or value.is_quantized:
        raise _NotDescribable
    flat = value.detach().cpu().contiguous().view(-1)
    content = hashlib.sha256(flat.view(torch.uint8).numpy().tobytes())
    return f'{_shape(value)} {content.hexdigest()}'


@cache
def _own_code() -> str:
    """The code of the search itself."""
    files = sorted(Path(__file__).parent.glob('*.py'))
    content = b''.join(file.read_bytes() for file in files)
    return hashlib.sha256(content).hexdigest()
