"""Default settings of data loaders, as upstream's tools set them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.config import Config, ConfigDict


def set_dataloader_defaults(
    cfg: Config, fields: Sequence[str], **defaults: object
) -> None:
    """Sets the defaults that upstream's tools set for every data loader.

    These are ``default_collate``, which makes batches of tensors (the
    Runner's own default makes lists), and pinned memory, but only if there is
    a GPU to which batches are copied.
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
    """Whether batches are in main memory and are copied to a GPU."""
    # device='auto' or 'cuda': tensors on a GPU cannot be pinned
    dataset = loader.get('dataset') or {}
    return torch.cuda.is_available() and dataset.get('device', 'cpu') == 'cpu'


def switch_off(cfg: Config, fields: Sequence[str], name: str) -> None:
    """Sets one setting of the data loaders to False."""
    for field in fields:
        if cfg.get(field) is not None:
            cfg[field][name] = False
