"""Lists the configs and plans that come with the package."""

import argparse
from fnmatch import fnmatch

from fgc_mm.config_files import configs_folder, list_configs


def main(args: argparse.Namespace) -> None:
    """Prints the folder, and the names below it."""
    print(f'{configs_folder()}:')
    for name in list_configs():
        if fnmatch(name, args.pattern):
            print(f'  {name}')
