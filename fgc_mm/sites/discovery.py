"""From a backbone and a user's wish to the list of sites."""

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.evaluating import evaluating
from fgc_mm.sites.graph import graph_candidates
from fgc_mm.sites.leaks import tight_sites
from fgc_mm.sites.patterns import match_names
from fgc_mm.sites.site import GateSite

# Small images first: where gates go does not depend on the size, and most
# backbones take any.
IMAGE_SIZES = (64, 224)


def find_sites(
    backbone: nn.Module,
    sites: str | Sequence[str] | Mapping[str, Any] = 'auto',
) -> list[GateSite]:
    """The sites of a backbone, in the order of its modules.

    Candidates come from torch-pruning's dependency graph, and each is tried:
    with noise in its closed channels the output must not change by a bit.

    Args:
        backbone: The network to be gated.
        sites: ``'auto'`` for every site that can be found; shell patterns on
            site names (the producing layer's path), e.g. ``['layer3.*']``;
            or ``dict(type='auto', image_size=..., seconds=60)``, where the
            size is a number or (H, W) for a backbone that takes one only,
            and the search ends with an error after so many seconds.

    Raises:
        FGCError: The backbone cannot be traced, has no site, or takes too
            long; or a pattern matches no site.
    """
    options = _options(sites)
    found = _search(backbone, options['image_size'], options['seconds'])
    if not found:
        raise FGCError(
            f'{type(backbone).__name__} has no layer whose output channels '
            'reach other layers without a residual sum or a layer that '
            'mixes channels, so there is nothing to gate; choose another '
            'backbone.'
        )
    if isinstance(sites, Mapping) or sites == 'auto':
        return found
    names = match_names(sites, [s.name for s in found], 'the site pattern')
    return [site for site in found if site.name in names]


def _options(sites: str | Sequence[str] | Mapping[str, Any]) -> dict:
    options = dict(type='auto', image_size=None, seconds=60)
    if isinstance(sites, Mapping):
        options.update(sites)
        if len(options) > 3 or options['type'] != 'auto':
            raise FGCError(
                f'sites={dict(sites)} is not understood; write '
                "dict(type='auto', image_size=..., seconds=...)."
            )
    return options


def _search(
    backbone: nn.Module, size: int | Sequence[int] | None, seconds: float
) -> list[GateSite]:
    with evaluating(backbone), _time_limit(backbone, seconds):
        images = small_images(backbone, size)
        candidates = list(graph_candidates(backbone, images))
        return tight_sites(backbone, candidates, images)


def small_images(
    backbone: nn.Module, size: int | Sequence[int] | None = None
) -> Tensor:
    """Two random images that the backbone accepts; (2, C, H, W).

    Args:
        backbone: In evaluation mode.
        size: Of the images; by default what the backbone names, or small.
    """
    size = size or getattr(backbone, 'img_size', None)
    for height_width in [size] if size else IMAGE_SIZES:
        images = _random(backbone, height_width)
        try:
            with torch.no_grad():
                backbone(images)
        except TimeoutError:
            raise
        except Exception:
            continue  # tracing the last size tells what is wrong
        break
    return images


def _random(backbone: nn.Module, size: int | Sequence[int]) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    weights = (p for p in backbone.parameters() if p.dim() == 4)
    first = next(weights, torch.zeros(1, 3, 1, 1))
    generator = torch.Generator().manual_seed(0)
    shape = 2, first.shape[1], int(height), int(width)
    return torch.randn(shape, generator=generator).to(first)


@contextmanager
def _time_limit(backbone: nn.Module, seconds: float) -> Iterator[None]:
    """Bound the search, where the platform and the thread allow it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except TimeoutError:
        raise FGCError(
            f'the search for sites in {type(backbone).__name__} took more '
            f'than {seconds:g} s; allow more with sites=dict('
            "type='auto', seconds=...)."
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
