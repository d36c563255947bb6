"""Makes .venv and installs fgc_mm with its dependencies into it.

`make` calls it. It needs nothing but Python and its venv module, can be run
again after any interruption, and shows one moving line instead of pip's
hundreds; those are in .venv/install.log.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.venv'
BIN = VENV / 'bin' / 'python'
STAMP = VENV / '.installed'
LOG = VENV / 'install.log'
CONSTRAINTS = Path('requirements', 'constraints-openmmlab.txt')
PIP = [str(BIN), '-m', 'pip', '--disable-pip-version-check']


def main() -> None:
    """Installs, and writes the stamp when all is there."""
    started = time.monotonic()
    print('Installing into .venv (about 5 GB with torch) ...', flush=True)
    STAMP.unlink(missing_ok=True)
    make_environment()
    extras = '.[openmmlab,test]'
    # Compiled when first imported: most modules of torch never are.
    options = '--no-compile', '-c', str(CONSTRAINTS)
    run_pip('install', *options, '-e', extras)
    if not imports('cv2'):
        use_headless_opencv()
    STAMP.write_text(str(ROOT))
    print(f'Installed in {time.monotonic() - started:.0f} s.', flush=True)


def make_environment() -> None:
    """Makes .venv, or repairs one that was left half made."""
    done = subprocess.run(
        [sys.executable, '-m', 'venv', str(VENV)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        tell(
            f'{sys.executable} cannot make .venv: it needs its venv module '
            '(on Debian and Ubuntu the package python3-venv), and a .venv of '
            f'another Python goes with `make clean`.\n{done.stdout.strip()}'
        )


def run_pip(*arguments: str) -> None:
    """Runs pip with its output in the log, and shows what it is at."""
    with LOG.open('w') as log:
        process = subprocess.Popen(
            [*PIP, *arguments], stdout=log, stderr=log, cwd=ROOT
        )
        try:
            show_progress(process)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        tail = '\n'.join(LOG.read_text().splitlines()[-12:])
        tell(f'pip failed, all it said is in {LOG}; the end of it:\n{tail}')


def show_progress(process: subprocess.Popen) -> None:
    """One line that moves on a terminal, elsewhere one line in 15 seconds."""
    terminal, started, shown = sys.stdout.isatty(), time.monotonic(), 0.0
    while process.poll() is None:
        time.sleep(0.2)
        seconds = time.monotonic() - started
        if seconds - shown >= (0.2 if terminal else 15):
            shown = seconds
            line = f'  {seconds:4.0f} s  {describe(LOG.read_text())}'
            text = f'\r{line:<78.78}' if terminal else f'{line}\n'
            print(text, end='', flush=True)
    if terminal:
        print(f'\r{"":<78}\r', end='', flush=True)


def describe(log: str) -> str:
    """What pip is doing, from its output so far."""
    if 'Installing collected packages' in log:
        total = log.rpartition('Installing collected')[2].count(',') + 1
        return f'unpacking {total} packages'
    if 'Building wheels for collected packages' in log:
        return 'compiling the runtime of fgc_mm'
    # pip is busy with the last collected package
    names = re.findall(r'^Collecting ([\w.-]+)', log, re.MULTILINE)
    if not names:
        return 'starting pip'
    return f'{len(names)} packages found, downloading {names[-1]}'


def imports(module: str) -> bool:
    """Whether the new environment can import the module."""
    command = [str(BIN), '-c', f'import {module}']
    return subprocess.run(command, capture_output=True).returncode == 0


def use_headless_opencv() -> None:
    """Replaces the OpenCV that needs a desktop's libraries (libGL).

    mmengine and mmcv require opencv-python, which cannot be imported without
    them; the headless build has the same modules and does not need them.
    """
    print('No libGL here: installing the headless OpenCV.', flush=True)
    run_pip('uninstall', '-y', 'opencv-python')
    # forced, since both own the same files, which were just removed
    force = '--force-reinstall', '--no-deps', '-c', str(CONSTRAINTS)
    run_pip('install', *force, 'opencv-python-headless')
    if not imports('cv2'):
        tell('cv2 cannot be imported: see `.venv/bin/python -c "import cv2"`.')


def tell(message: str) -> None:
    """Ends with a message for the user."""
    sys.exit(f'error: {message}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('interrupted: the same command goes on from here.')
