"""Tables of ``fgc-mm benchmark`` on the screen."""

from typing import Any

from rich.console import Console
from rich.table import Table

from fgc_mm.deploy.timing.macs_ratios import format_time_ratio

CONSOLE = Console(width=120)


def show_run(run: dict[str, Any]) -> None:
    """All tables of the runs with one number of threads."""
    _show_times(run)
    _show_sites(run['sites'])
    if run['profile']:
        _show_profile(run['profile'])
    print(
        f'{run["masks_seen_before"]:.1%} of the masks were those of an '
        'earlier image at the same site'
    )
    for note in run['notes']:
        print(note)


def _show_times(run: dict[str, Any]) -> None:
    """Milliseconds and ratios of every network."""
    table = Table(
        'network', 'ms (quartiles)', 'MACs ratio', 'speedup',
        'speedup / MACs ratio', 'over eager',
        title=f'{run["threads"]} threads; speedup over the best dense '
        f'network, {run["best_dense"]}',
    )  # fmt: skip
    for row in run['rows']:
        if 'ms' not in row:
            table.add_row(row['name'], f'not available: {row["why_not"]}')
            continue
        limit = row['macs_ratio'] if row['noise'] else float('inf')
        ratio = format_time_ratio(row['time_ratio'], limit)
        if row['name'] == run['best_dense']:
            ratio = '1'
        table.add_row(
            row['name'],
            f'{row["ms"]:.2f} ({row["ms_low"]:.2f} to {row["ms_high"]:.2f})',
            f'{row["macs_ratio"]:.2f} x',
            ratio,
            f'{row["time_ratio"] / row["macs_ratio"]:.2f}',
            f'{row["over_eager"]:.2f} x',
        )
    CONSOLE.print(table)


def _show_profile(profile: dict[str, Any]) -> None:
    """Groups of steps, and the longest steps."""
    groups = profile['groups']
    total = sum(groups.values())
    table = Table('steps', 'ms', 'share', title='times of the dynamic network')
    for name, ms in groups.items():
        table.add_row(name, f'{ms:.3f}', f'{ms / total:.0%}')
    CONSOLE.print(table)
    longest = sorted(profile['steps'], key=lambda step: -step['ms'])[:5]
    text = ', '.join(f'{step["name"]} {step["ms"]:.3f}' for step in longest)
    print(f'longest steps, in ms: {text}')


def _show_sites(sites: list[dict[str, Any]]) -> None:
    """Print the ratios of MACs and of time of every site."""
    table = Table(
        'site', 'open', 'MACs ratio', 'speedup', 'speedup / MACs ratio',
        'how', 'why',
        title='sites of the dynamic network, at its calibration',
    )  # fmt: skip
    for site in sites:
        time, macs = site['time_ratio'], site['macs_ratio']
        table.add_row(
            site['site'],
            f'{site["keep_ratio"]:.2f}',
            f'{macs:.2f} x',
            '-' if time is None else format_time_ratio(time, macs),
            '-' if time is None else f'{time / macs:.2f}',
            site['executed'] or '-',
            site['why'] or '-',
        )
    CONSOLE.print(table)
