"""A model without the channels that are never open."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fgc_mm.cli import run_script

if __name__ == '__main__':
    sys.exit(run_script('export compact'))
