"""Sites that are known need not be searched again.

A process remembers what it has found, and what it has read in checkpoints;
of several ranks that build the same network one searches, and gives the
others its result through the store of their process group. A fingerprint of
the network says whether a result is its own.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from threading import Lock
from typing import Any

from torch import distributed as dist
from torch import nn

from fgc_mm.sites.found import Found

KEY = 'sites'  # in the metadata of a state dict
MOST = 64  # networks that a process remembers
PATIENCE = timedelta(minutes=10)

_known: OrderedDict[str, str] = OrderedDict()
_lock = Lock()


def reused(
    fingerprint: str | None, backbone: nn.Module, search: Callable[[], Found]
) -> Found:
    """What is known of a network, else what ``search`` finds.

    Args:
        fingerprint: Of the network and the search's options.
        backbone: The network.
        search: Finds its sites.
    """
    if fingerprint is None:
        return search()
    found = _recalled(fingerprint, backbone)
    if found is None:
        found = found_once(_store(), fingerprint, search)
        remember(fingerprint, found.to_text())
    return found


def remember(fingerprint: str, text: str) -> None:
    """Keep a result, and forget the one that was not asked for longest."""
    with _lock:
        _known[fingerprint] = text
        _known.move_to_end(fingerprint)
        while len(_known) > MOST:
            _known.popitem(last=False)


def forget() -> None:
    """Search anew from now on."""
    with _lock:
        _known.clear()


def _recalled(fingerprint: str, backbone: nn.Module) -> Found | None:
    with _lock:
        text = _known.get(fingerprint)
    if text is None:
        return None
    with suppress(ValueError):  # a text that another program wrote
        found = Found.from_text(text)
        if found.fingerprint == fingerprint and found.fits(backbone):
            return found
    return None


def remember_checkpoint(checkpoint: Mapping[str, Any]) -> None:
    """Remember the sites of the gated backbones in a checkpoint.

    They are in the metadata of its state dict, where
    :func:`write_metadata` puts them.

    Args:
        checkpoint: As it was read; one without sites changes nothing.
    """
    state_dict = checkpoint.get('state_dict', checkpoint)
    metadata = getattr(state_dict, '_metadata', None)
    if not isinstance(metadata, Mapping):
        return
    for entry in metadata.values():
        kept = entry.get(KEY) if isinstance(entry, Mapping) else None
        if isinstance(kept, Mapping):
            for fingerprint, text in kept.items():
                if isinstance(fingerprint, str) and isinstance(text, str):
                    remember(fingerprint, text)


def write_metadata(found: Found, metadata: dict[str, Any]) -> None:
    """Put sites into a module's metadata in a state dict."""
    if found.fingerprint is not None:
        metadata[KEY] = {found.fingerprint: found.to_text()}


def found_once(
    store: dist.Store | None, key: str, search: Callable[[], Found]
) -> Found:
    """What the first of several ranks finds.

    No collective operation: a rank that builds a model alone waits for
    nobody. Where the first fails, or is gone, every rank searches itself.

    Args:
        store: That the ranks share; ``None`` for a single process.
        key: Of this search.
        search: Finds the sites.
    """
    if store is None:
        return search()
    key = f'fgc_mm/sites/{key}'
    if store.add(f'{key}/searches', 1) == 1:
        text = ''
        try:
            found = search()
            text = found.to_text()
        finally:
            store.set(key, text)
        return found
    with suppress(RuntimeError, ValueError):  # no answer in time, or none
        store.wait([key], PATIENCE)
        return Found.from_text(store.get(key).decode())
    return search()


def _store() -> dist.Store | None:
    if not (dist.is_available() and dist.is_initialized()):
        return None
    if dist.get_world_size() == 1:
        return None
    return dist.distributed_c10d._get_default_store()
