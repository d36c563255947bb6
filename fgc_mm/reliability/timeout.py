"""How long the processes of a run wait for each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# seconds; the default of torch.distributed
DEFAULT_TIMEOUT = 1800.0


def collective_timeout(cfg: Mapping[str, Any]) -> float:
    """Seconds that a collective may take: ``env_cfg.dist_cfg.timeout``.

    Args:
        cfg: The config of a run.
    """
    dist_cfg = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    return dist_cfg.get('timeout', DEFAULT_TIMEOUT)
