"""Runs the main function of a command."""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from getpass import getuser
from importlib import import_module
from pathlib import Path
from tempfile import gettempdir

from fgc_mm.cli.arguments import text_parser
from fgc_mm.cli.command_table import COMMANDS, find_command
from fgc_mm.config_files import config_file
from fgc_mm.error_line import print_error_line
from fgc_mm.errors import FGCError
from fgc_mm.exit_status import BAD_INPUT, BROKEN_PIPE, INTERRUPTED
from fgc_mm.missing_package import missing_sentence
from fgc_mm.version import __version__

PROGRAM = 'fgc-mm'


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status.

    Args:
        arguments: The name of the command and its arguments; by default
            those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return _until_pipe_closes(partial(_main, words))


def _until_pipe_closes(command: Callable[[], int]) -> int:
    """Runs a command; ends if the reader of its output, as head, ends."""
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def _main(words: list[str]) -> int:
    if words and words[0] in ('-h', '--help', 'help'):
        print(overview())
        return 0
    if words and words[0] == '--version':
        print(f'{PROGRAM} {__version__}')
        return 0
    found = find_command(words)
    if found is None:
        print_error_line(f'error: {_no_command(words)}')
        return BAD_INPUT
    name, rest = found
    sys.argv[:] = [f'{PROGRAM} {name}', *rest]
    return run(name)


def run_script(name: str) -> int:
    """Runs a command for a file in tools/; returns its exit status."""
    # remove the folder of the script from sys.path: tools/export/onnx.py
    # would hide the package onnx
    folder = str(Path(sys.argv[0]).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    return _until_pipe_closes(partial(run, name))


def run(name: str) -> int:
    """Runs a command; returns its exit status.

    The arguments are parsed first: ``--help`` and a wrong argument do not
    wait for the imports of the command.
    """
    _name_user()
    command = COMMANDS[name]
    module = f'fgc_mm.cli.commands.{command.module}'
    try:
        args = parse(name)
        if not command.needs_openmmlab:
            return import_module(module).main(args) or 0
        import_module('fgc_mm.registered')  # checks the installation
        main = import_module(module).main
        run_tool = import_module('fgc_mm.cli.run_tool').run_tool
        ranks = import_module('fgc_mm.reliability.ranks')
        ranks.set_launcher(getattr(args, 'launcher', 'none'))
    except FGCError as error:
        print_error_line(f'error: {error}')
        return BAD_INPUT
    except OSError as error:
        return _end(error)
    except ModuleNotFoundError as error:
        sentence = missing_sentence(error)
        if sentence is None:
            raise
        print_error_line(f'error: {sentence}')
        return BAD_INPUT
    except KeyboardInterrupt:
        print_error_line('interrupted')
        return INTERRUPTED
    return run_tool(partial(main, args))


def _name_user() -> None:
    """Gives name and home to a user id that the system does not know.

    ``docker run --user`` has such ones; torch and others end without them.
    """
    try:
        getuser()
    except (KeyError, OSError):
        os.environ['USER'] = f'user{os.getuid()}'
    try:
        Path.home()
    except RuntimeError:
        os.environ['HOME'] = gettempdir()


def _end(error: OSError) -> int:
    """Prints an error of a file; returns the exit status."""
    pipe = isinstance(error, BrokenPipeError)
    if pipe or os.environ.get('FGC_TRACEBACK'):
        raise error
    print_error_line(f'error: {path_sentence(error)}')
    return BAD_INPUT


def path_sentence(error: OSError) -> str:
    """The message for a file that is missing or unreadable."""
    if error.filename is None:
        return ' '.join(str(error).split()) or type(error).__name__
    # of a file that could not be renamed, the new name
    name = error.filename2 or error.filename
    return f'{name}: {error.strerror}; check the path.'


def parse(name: str) -> Namespace:
    """The arguments of a command, from those of the process.

    Raises:
        FGCError: Arguments do not fit each other, or there is no such config.
    """
    module = import_module(f'fgc_mm.cli.parsers.{COMMANDS[name].module}')
    parser = text_parser(module.__doc__)
    module.add_arguments(parser)
    args = parser.parse_args()
    if hasattr(module, 'check_arguments'):
        module.check_arguments(args)
    if 'local_rank' in args:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    # with a launcher, one process reports errors, for which it needs torch
    if 'config' in args and getattr(args, 'launcher', 'none') == 'none':
        config_file(args.config)
    return args


def overview() -> str:
    """What ``fgc-mm --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {c.summary}' for name, c in COMMANDS.items()]
    return '\n'.join(
        [
            f'usage: {PROGRAM} COMMAND [ARGUMENT ...]',
            '',
            'Dynamic channel pruning for mmpretrain.',
            '',
            *lines,
            '',
            f'{PROGRAM} COMMAND --help describes the arguments of a command.',
        ]
    )


def _no_command(words: list[str]) -> str:
    if not words:
        return f'{PROGRAM} needs a command; `{PROGRAM} --help` lists them.'
    within = [name for name in COMMANDS if name.startswith(f'{words[0]} ')]
    if within:
        wrong = f' with {words[1]!r}' if words[1:] else ''
        return (
            f'{PROGRAM} {words[0]} is not complete{wrong}; choose among '
            f'{", ".join(within)}.'
        )
    nearest = get_close_matches(words[0], COMMANDS, n=1)
    remedy = f'did you mean {nearest[0]}? ' if nearest else ''
    return (
        f'{words[0]!r} is not a command of {PROGRAM}: {remedy}'
        f'`{PROGRAM} --help` lists them.'
    )
