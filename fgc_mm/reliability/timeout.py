"""How long the processes of a run wait for each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

# in seconds; torch's own default is the same for gloo, and 600 for NCCL
DEFAULT_TIMEOUT = 1800.0


def collective_timeout(cfg: Mapping[str, Any]) -> float:
    """Seconds that a collective may take: ``env_cfg.dist_cfg.timeout``."""
    dist_cfg = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    return dist_cfg.get('timeout', DEFAULT_TIMEOUT)


def set_timeout(cfg: Config) -> None:
    """Set ``env_cfg.dist_cfg.timeout`` to the default unless it is set.

    MMEngine passes it to ``init_process_group``.
    """
    seconds = collective_timeout(cfg)
    cfg.merge_from_dict({'env_cfg.dist_cfg.timeout': seconds})
