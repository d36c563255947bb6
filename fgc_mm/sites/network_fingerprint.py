"""A hash of everything that the sites of a network depend on."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import cache, partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fgc_mm.sites.code_text import code_text, qualified
from fgc_mm.sites.layout import mixes_channels

PLAIN = (
    type(None), bool, int, float, complex, str, bytes,
    torch.dtype, torch.device, torch.Size, Enum, BuiltinFunctionType,
)  # fmt: skip
# Attributes that a search does not use: training mode, initialisation,
# state-dict hooks.
IGNORED = (
    'training', 'init_cfg', '_is_init', '_params_init_info', '_parameters',
    '_buffers', '_modules', '_non_persistent_buffers_set', '_state_dict',
    '_load_state_dict', '_backward', '_full_backward', '_is_full_backward',
)  # fmt: skip
RANDOM = ('running_mean', 'running_var', 'num_batches_tracked')


def network_fingerprint(
    backbone: nn.Module, options: Mapping[str, Any]
) -> str | None:
    """A hash of the network, its code and the search options.

    It covers the modules with their attributes and shapes, the code of their
    classes and of the functions that it calls, and the code of the search.
    It does not depend on trained weights, since the search does not either.

    Args:
        backbone: The network.
        options: Of the search.

    Returns:
        64 hexadecimal digits; ``None`` for a network with an attribute that
        cannot be described (an object of an unknown class); such a network
        has to be searched every time.
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
        if isinstance(value, Mapping):
            pairs = [part for pair in value.items() for part in pair]
            return _combined('mapping', map(self._text, pairs))
        if isinstance(value, (tuple, list)) and not isinstance(value, PLAIN):
            return _combined('list', map(self._text, value))
        if isinstance(value, (set, frozenset)):
            return _combined('set', sorted(map(self._text, value)))
        if isinstance(value, PLAIN):
            return repr(value)
        return self._called(value)

    def _called(self, value: Any) -> str:
        """Describe a class, a function, or a function with arguments."""
        if isinstance(value, (type, FunctionType)):
            return self._code(value)
        if isinstance(value, MethodType):
            return self._text((value.__func__, value.__self__))
        if isinstance(value, partial):
            return self._text((value.func, value.args, value.keywords))
        raise _NotDescribable

    def _code(self, value: type | FunctionType) -> str:
        """Describe a class or function and what it refers to, once."""
        if value in self._seen:
            return qualified(value)
        self._seen.add(value)
        text, others = code_text(value)
        return f'{text} {[self._text(other) for other in others]}'


def _combined(kind: str, texts: Iterable[str]) -> str:
    """One text for several; its length does not grow with their number."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(f'{len(encoded)} '.encode() + encoded)
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
    if value.is_meta:
        raise _NotDescribable
    flat = value.detach().cpu().contiguous().view(-1)
    content = hashlib.sha256(flat.view(torch.uint8).numpy().tobytes())
    return f'{_shape(value)} {content.hexdigest()}'


@cache
def _own_code() -> str:
    """The code of the search itself."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob('*.py')):
        digest.update(file.read_bytes())
    return digest.hexdigest()
