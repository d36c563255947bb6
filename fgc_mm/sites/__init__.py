"""Where gates go."""

from fgc_mm.sites.discovery import chosen, find_sites, search_sites
from fgc_mm.sites.found import Found
from fgc_mm.sites.patterns import match_names
from fgc_mm.sites.port import SitePort
from fgc_mm.sites.record import GateRecord, keep_ratio
from fgc_mm.sites.site import GateSite, Member

__all__ = [
    'Found',
    'GateRecord',
    'GateSite',
    'Member',
    'SitePort',
    'chosen',
    'find_sites',
    'keep_ratio',
    'match_names',
    'search_sites',
]
