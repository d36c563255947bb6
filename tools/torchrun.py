"""torchrun that reports errors in one line; see fgc_mm/cli/torchrun.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fgc_mm.cli.torchrun import run

if __name__ == '__main__':
    sys.exit(run())
