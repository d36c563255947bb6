"""Gate sites: finding them, and the hooks that apply gates there."""

from fgc_mm.sites.discovery import find_sites, search_sites, select_sites
from fgc_mm.sites.found_sites import FoundSites
from fgc_mm.sites.gate_hooks import GateHooks
from fgc_mm.sites.gate_record import GateRecord, keep_ratio
from fgc_mm.sites.patterns import match_names
from fgc_mm.sites.site import GateSite, SiteLayer

__all__ = [
    'FoundSites',
    'GateHooks',
    'GateRecord',
    'GateSite',
    'SiteLayer',
    'find_sites',
    'keep_ratio',
    'match_names',
    'search_sites',
    'select_sites',
]
