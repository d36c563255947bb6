"""Where gates go."""

from fgc_mm.sites.discovery import find_sites
from fgc_mm.sites.patterns import match_names
from fgc_mm.sites.port import SitePort
from fgc_mm.sites.record import GateRecord, keep_ratio
from fgc_mm.sites.site import GateSite, Member

__all__ = [
    'GateRecord',
    'GateSite',
    'Member',
    'SitePort',
    'find_sites',
    'keep_ratio',
    'match_names',
]
