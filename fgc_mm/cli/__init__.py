"""The commands: ``fgc-mm``, ``python -m fgc_mm.cli`` and the files in tools/.

Nothing here imports torch before a command runs.
"""

from fgc_mm.cli.dispatch import main, run_script

__all__ = ['main', 'run_script']
