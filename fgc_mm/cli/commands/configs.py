"""Lists the configs and plans that come with the package."""

import argparse
import sys
from fnmatch import fnmatch

from fgc_mm.config_files import configs_folder, list_configs


def main(args: argparse.Namespace) -> None:
    """Prints the folder, and the names below it."""
    names = [
        name
        for name in list_configs()
        if fnmatch(name, args.pattern) or args.pattern in name
    ]
    print(f'{configs_folder()}:')
    for name in names:
        print(f'  {name}')
    if not names:
        print(
            f'{args.pattern!r} matches no config: a pattern is a part of a '
            "name, or has a shell's wildcards; `fgc-mm configs` lists all.",
            file=sys.stderr,
        )
