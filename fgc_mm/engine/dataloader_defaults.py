"""Settings of data loaders that upstream's tools fill in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.config import Config, ConfigDict


def set_dataloader_defaults(
    cfg: Config, fields: Sequence[str], **defaults: object
) -> None:
    """Fills in what upstream's tools set for every data loader.

    Batches of tensors (``default_collate``; a bare Runner makes lists), and
    pinned memory, but only where a GPU can profit from it.
    """
    for field in fields:
        if cfg.get(field) is not None:
            loader = ConfigDict(
                pin_memory=_can_pin(cfg[field]),
                collate_fn=dict(type='default_collate'),
                **defaults,
            )
            loader.update(cfg[field])
            cfg[field] = loader


def _can_pin(loader: ConfigDict) -> bool:
    """Whether batches lie in the main memory, and a GPU profits."""
    # 'auto' and the like: what lies on a GPU already cannot be pinned
    dataset = loader.get('dataset') or {}
    return torch.cuda.is_available() and dataset.get('device', 'cpu') == 'cpu'


def switch_off(cfg: Config, fields: Sequence[str], name: str) -> None:
    """Sets one setting of the data loaders to False, whatever it was."""
    for field in fields:
        if cfg.get(field) is not None:
            cfg[field][name] = False
