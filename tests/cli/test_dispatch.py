"""The commands of fgc-mm, and the files in tools/ that run them."""

import ast
import getpass
import importlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fgc_mm.cli import dispatch
from fgc_mm.cli.arguments import text_parser
from fgc_mm.cli.command_table import COMMANDS, find_command
from fgc_mm.command_process import MAIN, as_typed, command_of

ROOT = Path(__file__).resolve().parents[2]
COMMAND_FILES = ROOT / 'fgc_mm' / 'cli' / 'commands'
PARSER_FILES = ROOT / 'fgc_mm' / 'cli' / 'parsers'
TOOLS = sorted((ROOT / 'tools').rglob('*.py'))
HEAVY = {'torch', 'numpy', 'mmengine', 'mmpretrain', 'rich'}


def run_cold(*arguments):
    """Of a Python without any installed package, in milliseconds."""
    return subprocess.run(
        [sys.executable, '-IS', *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_help_is_one_screen_and_imports_nothing_large():
    code = (
        f'import sys; sys.path.insert(0, {str(ROOT)!r}); '
        'from fgc_mm.cli import main; code = main(["--help"]); '
        'print(code, *sys.modules)'
    )
    *screen, last = run_cold('-c', code).stdout.splitlines()
    assert len(screen) <= 40 and max(map(len, screen)) <= 80
    for name, command in COMMANDS.items():
        (line,) = (x for x in screen if x.startswith(f'  {name} '))
        assert line.endswith(command.summary)
    code, *modules = last.split()
    assert code == '0' and not HEAVY & {*modules}


@pytest.mark.parametrize('name', COMMANDS)
def test_arguments_are_parsed_before_anything_is_imported(name):
    command = MAIN, *name.split()
    described = run_cold(*command, '--help')
    assert described.returncode == 0
    assert described.stdout.startswith(f'usage: fgc-mm {name} [-h]')
    refused = run_cold(*command, '--no-such-option')
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(f'fgc-mm {name}: error')


@pytest.mark.parametrize('name', COMMANDS)
def test_every_argument_is_described(name):
    module = importlib.import_module(
        f'fgc_mm.cli.parsers.{COMMANDS[name].module}'
    )
    parser = text_parser('')
    module.add_arguments(parser)
    assert [a.dest for a in parser._actions if not a.help] == []


@pytest.mark.parametrize(
    'rows',
    [
        ['fgc_resnet20_digit.py'],
        ['dense_resnet20_digits', 'fpgm:dense_resnet20_digit.py'],
        ['--plan', 'studies/figure5_rh.yaml'],
    ],
)
def test_a_comparison_misses_a_file_before_anything_is_imported(rows):
    done = run_cold(MAIN, 'compare', *rows, '--work-dir', 'x')
    assert done.returncode == 2
    assert done.stderr.startswith('error: ') and 'did you mean' in done.stderr


def test_the_nearest_option_is_named():
    done = run_cold(MAIN, 'train', 'fgc_resnet20_digits', '--work-dri', 'x')
    assert done.stderr.endswith('--work-dri x; did you mean --work-dir?\n')


@pytest.mark.parametrize('name', ['train', 'macs', 'export compact'])
def test_a_missing_config_is_found_before_anything_is_imported(name):
    others = ['x.pth', '--out', 'x'] if name == 'export compact' else []
    done = run_cold(MAIN, *name.split(), 'fgc_resnet20_digit.py', *others)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith('did you mean fgc_resnet20_digits.py?')


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_a_main_function(name):
    file = COMMAND_FILES / f'{COMMANDS[name].module}.py'
    nodes = ast.parse(file.read_text()).body
    assert 'main' in [getattr(node, 'name', None) for node in nodes]
    assert find_command([*name.split(), 'x.py', '--y']) == (
        name,
        ['x.py', '--y'],
    )


def test_every_file_is_the_command_of_one_name():
    files = {path.stem for path in COMMAND_FILES.glob('[!_]*.py')}
    parsers = {path.stem for path in PARSER_FILES.glob('[!_]*.py')}
    modules = [command.module for command in COMMANDS.values()]
    assert sorted(modules) == sorted(files) == sorted(parsers)


@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: path.stem)
def test_a_tool_is_a_thin_caller(tool):
    lines = tool.read_text().splitlines()
    assert len(lines) <= 10
    depth = len(tool.relative_to(ROOT).parts) - 1
    assert f'.parents[{depth}]' in lines[5]
    if tool.stem == 'torchrun':
        return
    (name,) = re.findall(r"sys\.exit\(run_script\('(.*)'\)\)", lines[-1])
    assert COMMANDS[name].module == tool.stem


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        ([], 'needs a command'),
        (['trian'], "'trian' is not a command of fgc-mm: did you mean train?"),
        (['export'], 'export is not complete; choose among export onnx, '),
        (['export', 'x.py'], "export is not complete with 'x.py'; choose"),
        (['--hepl'], 'lists them'),
    ],
)
def test_an_unknown_command_is_one_line(words, told, capsys):
    assert dispatch.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ') and told in line


def test_the_version(capsys):
    from fgc_mm import __version__

    assert dispatch.main(['--version']) == 0
    assert capsys.readouterr().out == f'fgc-mm {__version__}\n'


def test_a_command_has_its_own_name_and_arguments(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['fgc-mm', 'configs', 'no such config'])
    assert dispatch.main() == 0
    assert sys.argv == ['fgc-mm configs', 'no such config']
    assert capsys.readouterr().out == f'{ROOT / "configs"}:\n'
    with pytest.raises(SystemExit) as stop:
        dispatch.main(['train', '--help'])
    assert stop.value.code == 0
    assert 'usage: fgc-mm train ' in capsys.readouterr().out


def test_what_is_missing_is_one_line():
    """However the command is started, without any installation."""
    config = 'fgc_resnet20_digits'
    for started in (
        [MAIN, 'train', config],
        [ROOT / 'tools' / 'train.py', config],
        [ROOT / 'tools/export/onnx.py', config, 'x.pth', '--out', 'x.onnx'],
    ):
        done = run_cold(*started)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2
        assert line.startswith('error: fgc_mm needs torch and torchvision')


def test_the_folder_of_a_script_is_not_on_the_path(monkeypatch):
    folder = ROOT / 'tools' / 'export'
    monkeypatch.setattr(sys, 'argv', [str(folder / 'onnx.py')])
    monkeypatch.setattr(sys, 'path', [str(ROOT), str(folder), *sys.path])
    monkeypatch.setattr(dispatch, 'run', lambda name: name)
    assert dispatch.run_script('export onnx') == 'export onnx'
    assert str(folder) not in sys.path and str(ROOT) in sys.path


@pytest.mark.parametrize(
    'pattern', ['fgc_*digits_55*', 'fgc_resnet20_digits_55']
)
def test_configs_by_a_part_of_their_name(monkeypatch, capsys, pattern):
    monkeypatch.setattr(sys, 'argv', ['fgc-mm', 'configs', pattern])
    assert dispatch.main() == 0
    _, *names = capsys.readouterr().out.split()
    assert names == ['fgc_resnet20_digits_55.py']


def test_no_abbreviated_options(capsys):
    with pytest.raises(SystemExit) as stop:
        dispatch.main(['train', 'config.py', '--epoch', '3'])
    assert stop.value.code == 2
    assert 'did you mean --epochs?' in capsys.readouterr().err


def test_ctrl_c_in_a_light_command(monkeypatch, capsys):
    from fgc_mm.cli.commands import configs

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(configs, 'main', stop)
    monkeypatch.setattr(sys, 'argv', ['fgc-mm configs'])
    assert dispatch.run('configs') == 130
    assert capsys.readouterr().err == 'interrupted\n'


def test_a_command_line_and_what_a_user_types():
    command = command_of('export onnx', ROOT / 'configs' / 'a b.py', 3)
    assert command == [
        sys.executable, '-u', str(MAIN), 'export', 'onnx',
        f'{ROOT}/configs/a b.py', '3',
    ]  # fmt: skip
    assert as_typed(command) == "fgc-mm export onnx 'configs/a b.py' 3"


def test_a_path_that_cannot_be_read_is_one_line(tmp_path, capsys):
    """Of a folder of another user, say."""
    done = run_cold(MAIN, 'train', 'x' * 300)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.endswith('long; check the path.')
    (tmp_path / 'file').touch()
    assert dispatch.main(['demo', '--work-dir', str(tmp_path / 'file')]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: {tmp_path / "file"}')


@pytest.mark.parametrize(
    'arguments',
    [['configs'], ['--version'], ['macs', 'dense_resnet20_digits']],
)
@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_a_reader_that_stops_reading_is_no_error(arguments, unbuffered):
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-m', 'fgc_mm.cli', *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, 'PYTHONUNBUFFERED': unbuffered},
    )  # fmt: skip
    process.stdout.close()  # before anything is written
    error = process.stderr.read()
    assert 'Traceback' not in error and 'ignored' not in error
    assert process.wait() == 141 or (arguments[0] == 'macs' and unbuffered)


@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_an_error_is_one_write(unbuffered):
    """Else a line of another process could come before its end."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.run(
        [sys.executable, '-S', MAIN, 'trian'],
        stderr=there,
        env={**os.environ, 'PYTHONUNBUFFERED': unbuffered},
    )
    first = here.recv(10_000).decode()
    assert first.startswith('error: ') and first.endswith('\n')
    here.close(), there.close()


def test_a_user_that_the_system_does_not_know(monkeypatch):
    """As of ``docker run --user 12345``."""

    def unknown(number):
        raise KeyError(f'getpwuid(): uid not found: {number}')

    for name in ('LOGNAME', 'USER', 'LNAME', 'USERNAME', 'HOME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr('pwd.getpwuid', unknown)
    dispatch._name_user()
    assert getpass.getuser() and Path.home().is_dir()
    monkeypatch.setenv('HOME', '/own')
    dispatch._name_user()
    assert str(Path.home()) == '/own'
