"""``python -m fgc_mm.cli``; runs by its path, too, without installation."""

import sys
from pathlib import Path

if __name__ == '__main__':
    if not __package__:  # run by its path: import the package around it
        here = Path(__file__).resolve().parent
        sys.path[:] = [entry for entry in sys.path if entry != str(here)]
        if str(here.parents[1]) not in sys.path:
            sys.path.insert(0, str(here.parents[1]))
    from fgc_mm.cli.dispatch import main

    sys.exit(main())
