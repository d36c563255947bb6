"""A cache of site searches.

A process caches the sites that it has found or read from checkpoints. If
several ranks build the same network, one of them searches, and the others
read its result from the store of the process group. The key is the
fingerprint of the network.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from threading import Lock
from typing import Any

from torch import distributed as dist
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.found_sites import FoundSites

KEY = 'sites'  # in the metadata of a state dict
REFUSED = 'refused: '  # before the message of a search that failed
MAX_NETWORKS = 64  # in the cache of a process
WAIT_TIMEOUT = timedelta(minutes=10)

_cache: OrderedDict[str, str] = OrderedDict()
_lock = Lock()


def cached_or_search(
    fingerprint: str | None,
    backbone: nn.Module,
    search: Callable[[], FoundSites],
) -> FoundSites:
    """The cached result for a network, otherwise that of ``search``."""
    if fingerprint is None:
        return search()
    found = _cached(fingerprint, backbone)
    if found is None:
        found = search_once(_store(), fingerprint, search)
        cache_sites(fingerprint, found.to_text())
    return found


def cache_sites(fingerprint: str, text: str) -> None:
    """Cache a result; drop the least recently used ones."""
    with _lock:
        _cache[fingerprint] = text
        _cache.move_to_end(fingerprint)
        while len(_cache) > MAX_NETWORKS:
            _cache.popitem(last=False)


def clear_cache() -> None:
    """Empty the cache."""
    with _lock:
        _cache.clear()


def _cached(fingerprint: str, backbone: nn.Module) -> FoundSites | None:
    with _lock:
        text = _cache.get(fingerprint)
    if text is None:
        return None
    with suppress(ValueError):  # text in another format
        found = FoundSites.from_text(text)
        if found.fingerprint == fingerprint and found.matches(backbone):
            return found
    return None


def cache_checkpoint_sites(checkpoint: Mapping[str, Any]) -> None:
    """Cache the sites of the gated backbones in a checkpoint.

    They are in the metadata of its state dict (:func:`write_metadata`).
    """
    state_dict = checkpoint.get('state_dict', checkpoint)
    metadata = getattr(state_dict, '_metadata', None)
    if not isinstance(metadata, Mapping):
        return
    for entry in metadata.values():
        stored = entry.get(KEY) if isinstance(entry, Mapping) else None
        if isinstance(stored, Mapping):
            for fingerprint, text in stored.items():
                if isinstance(fingerprint, str) and isinstance(text, str):
                    cache_sites(fingerprint, text)


def write_metadata(found: FoundSites, metadata: dict[str, Any]) -> None:
    """Write sites into a module's metadata in a state dict."""
    if found.fingerprint is not None:
        metadata[KEY] = {found.fingerprint: found.to_text()}


def search_once(
    store: dist.Store | None, key: str, search: Callable[[], FoundSites]
) -> FoundSites:
    """The result of the first rank that calls this function.

    This is not a collective operation: a rank that alone builds a model does
    not wait. If the first rank finds that the network cannot be gated, all
    ranks fail with its message; if it has another error or has exited, every
    other rank searches the network itself.

    Args:
        store: Shared by the ranks; ``None`` for a single process.

    Raises:
        FGCError: The network cannot be gated.
    """
    if store is None:
        return search()
    key = f'fgc_mm/sites/{key}'
    if store.add(f'{key}/searches', 1) == 1:
        text = ''
        try:
            found = search()
            text = found.to_text()
        except FGCError as error:
            text = f'{REFUSED}{error}'
            raise
        finally:
            store.set(key, text)
        return found
    text = ''
    with suppress(RuntimeError):  # timeout
        store.wait([key], WAIT_TIMEOUT)
        text = store.get(key).decode()
    if text.startswith(REFUSED):
        raise FGCError(text.removeprefix(REFUSED))
    with suppress(ValueError):  # a failed search
        return FoundSites.from_text(text)
    return search()


def _store() -> dist.Store | None:
    if not (dist.is_available() and dist.is_initialized()):
        return None
    if dist.get_world_size() == 1:
        return None
    return dist.distributed_c10d._get_default_store()
