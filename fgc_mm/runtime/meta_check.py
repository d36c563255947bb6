"""Checks the JSON of a file, before images are classified with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, prod
from typing import Any

from fgc_mm.runtime.errors import RuntimeFileError, error_line
from fgc_mm.runtime.resizing import INTERPOLATIONS

REQUIRED_KEYS = {
    '': ('classes', 'preprocessing', 'sites', 'macs', 'scores'),
    'preprocessing': ('steps', 'size', 'channel_order', 'bits', 'mean', 'std'),
    'macs': ('dense', 'fixed', 'layers', 'positions'),
}
SITE_KEYS = 'logits', 'output'
RESIZE_KEYS = 'edge', 'size', 'interpolation', 'backend'
SCORES = 'softmax', 'sigmoid'
ORDERS = 'rgb', 'bgr', 'grey'
EDGES = 'both', 'short', 'long', 'width', 'height'
MAX_CHANNELS = 2**24
MAX_PIXELS = 2**15  # of an edge after resizing

Shape = tuple[int, int, int]


def check_meta(
    meta: Mapping[str, Any], image: Shape, outputs: Sequence[Shape]
) -> None:
    """Check that a file's JSON describes its network.

    Args:
        meta: The JSON, see docs/runtime.md.
        image: (channels, height, width) of an image.
        outputs: (channels, height, width) of every output.

    Raises:
        RuntimeFileError: It does not.
    """
    try:
        _check_keys(meta)
        facts = _facts(meta, image, outputs)
        wrong = next((name for name, holds in facts if not holds), None)
    except RuntimeFileError:
        raise
    except Exception as error:  # any value may have any type
        raise _inconsistent(error_line(error)) from error
    if wrong is not None:
        raise _inconsistent(f'wrong {wrong}')


def _inconsistent(why: str) -> RuntimeFileError:
    return RuntimeFileError(
        f"the file's JSON does not describe its network ({why}); write it "
        'with tools/export/bundle.py.'
    )


def _check_keys(meta: Mapping[str, Any]) -> None:
    for part, keys in REQUIRED_KEYS.items():
        _check_part(meta[part] if part else meta, keys)
    for site in meta['sites']:
        _check_part(site, SITE_KEYS)
    for step in meta['preprocessing']['steps']:
        if 'resize' in step:
            _check_part(step['resize'], RESIZE_KEYS)


def _check_part(part: Any, keys: Sequence[str]) -> None:
    given = part if isinstance(part, Mapping) else ()
    missing = [key for key in keys if key not in given]
    if missing:
        raise RuntimeFileError(
            f"the file's JSON has no {missing[0]!r}, which image files "
            'need; write it with tools/export/bundle.py, or run '
            'fgc_mm.runtime.Model on arrays.'
        )


def _facts(
    meta: Mapping[str, Any], image: Shape, outputs: Sequence[Shape]
) -> Iterator[tuple[str, bool]]:
    """What must hold, and whether it does."""
    names, sites, macs = meta['classes'], meta['sites'], meta['macs']
    yield 'classes', isinstance(names, list)
    yield 'classes', len(names) == prod(outputs[0])
    yield 'classes', all(isinstance(name, str) for name in names)
    yield 'scores', meta['scores'] in SCORES
    yield 'sites', len(sites) > 0
    for site in sites:
        last = len(outputs) - 1
        yield 'sites', all(_is_whole(site[x], 0, last) for x in SITE_KEYS)
    yield from _preprocessing_facts(meta['preprocessing'], image)
    yield 'macs', _is_number(macs['dense']) and macs['dense'] > 0
    yield 'macs', _is_number(macs['fixed']) and macs['fixed'] >= 0
    for runs in macs['positions']:
        yield 'macs', len(runs) > 0 and all(map(_is_run, runs))
    expanded = sum(count for runs in macs['positions'] for _, count in runs)
    yield 'macs', expanded <= MAX_CHANNELS
    channels = [prod(outputs[site['output']]) for site in sites]
    for unit, inputs, written, groups, *ends in macs['layers']:
        fits = all(_is_whole(x, 1, MAX_CHANNELS) for x in (inputs, written))
        fits = fits and all(_is_whole(x, 1) for x in (unit, groups))
        yield 'macs', fits and inputs % groups == written % groups == 0
        for count, end in zip((inputs, written), ends, strict=True):
            for site, number in end:
                runs = None if number is None else macs['positions'][number]
                wide = _width(channels[site], runs)
                yield 'macs', wide == count and site >= 0


def _width(channels: int, runs: Any) -> int | None:
    """Channels that a site's mask is expanded to; ``None``: it is wrong."""
    if runs is None:
        return channels
    if any(first >= 0 and first + count > channels for first, count in runs):
        return None
    return sum(count for _, count in runs)


def _is_run(run: Any) -> bool:
    first, count = run
    return _is_whole(first, -1) and _is_whole(count, 1, MAX_CHANNELS)


def _preprocessing_facts(
    settings: Mapping[str, Any], image: Shape
) -> Iterator[tuple[str, bool]]:
    channels, *size = image
    order, bits = settings['channel_order'], settings['bits']
    yield 'size', list(settings['size']) == size
    yield 'channel_order', order in ORDERS
    yield 'channel_order', channels == (1 if order == 'grey' else 3)
    yield 'bits', bits is None or _is_whole(bits, 8, 16)
    yield 'steps', all(map(_is_step, settings['steps']))
    mean, std = settings['mean'], settings['std']
    if not mean is std is None:
        for name, numbers in (('mean', mean), ('std', std)):
            _check_normalisation(name, numbers, order, channels)
        yield 'std', all(std)


def _is_step(step: Mapping[str, Any]) -> bool:
    """Unknown steps are named when an image is preprocessed."""
    if 'resize' not in step:
        return 'crop' not in step or _is_size(step['crop'])
    options = step['resize']
    edge, size = options['edge'], options['size']
    if options['interpolation'] not in INTERPOLATIONS[options['backend']]:
        return False
    if edge == 'within':  # the larger bound may be inf
        return _is_size([min(size)] * len(size)) and max(size) > 0
    pair = size if edge == 'both' else [size, size]
    return edge in EDGES and _is_size(pair, MAX_PIXELS)


def _is_size(pair: Any, largest: int = 2**62) -> bool:
    return len(pair) == 2 and all(_is_whole(x, 1, largest) for x in pair)


def _check_normalisation(
    name: str, numbers: Any, order: str, channels: int
) -> None:
    listed = isinstance(numbers, list) and len(numbers) in (1, channels)
    if not listed or not all(map(_is_number, numbers)):
        raise RuntimeFileError(
            f"the file's JSON has {name}={numbers!r}, but the "
            f'normalisation of {order!r} images needs {channels} numbers; '
            'write it with tools/export/bundle.py.'
        )


def _is_whole(value: Any, low: int, high: int = 2**62) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and low <= value <= high


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and isfinite(value)
