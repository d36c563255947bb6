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
                pin_memory=torch.cuda.is_available(),
                collate_fn=dict(type='default_collate'),
                **defaults,
            )
            loader.update(cfg[field])
            cfg[field] = loader


def unpin_device_images(cfg: Config, fields: Sequence[str]) -> None:
    """Sets ``pin_memory`` to False where images are already on a device.

    Memory of a GPU cannot be pinned. To be called last, since options may
    set the device of a data set.
    """
    for field in fields:
        if _on_device((cfg.get(field) or {}).get('dataset')):
            cfg[field].pin_memory = False


def _on_device(dataset: dict | None) -> bool:
    """Whether a data set, or one that it wraps, holds images on a device."""
    if not isinstance(dataset, dict):  # a data set that is built
        return False
    wrapped = [dataset.get('dataset'), *(dataset.get('datasets') or ())]
    # device='auto' may be a GPU
    return dataset.get('device', 'cpu') != 'cpu' or any(
        map(_on_device, wrapped)
    )


def switch_off(cfg: Config, fields: Sequence[str], name: str) -> None:
    """Sets one setting of the data loaders to False."""
    for field in fields:
        if cfg.get(field) is not None:
            cfg[field][name] = False
