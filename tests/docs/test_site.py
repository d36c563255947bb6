"""What the site, the workflows and the hooks name exists in one version."""

import ast
import configparser
import re

import pytest
import yaml

from fgc_mm.cli.command_table import COMMANDS
from fgc_mm.losses import GateLoss

from .pages import ROOT

WORKFLOWS = ROOT / '.github' / 'workflows'
PINNED = dict(
    re.findall(
        r'^([\w.-]+)==([\w.]+)',
        (ROOT / 'requirements' / 'constraints.txt').read_text(),
        re.MULTILINE,
    )
)


def setup_cfg():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / 'setup.cfg')
    return parser


def strings(file):
    """Texts in a Python file; what an f-string fills in is ``...``."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield ''.join(
                part.value if isinstance(part, ast.Constant) else '...'
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def quoted_messages():
    """Our messages as docs/troubleshooting.md quotes them."""
    page = (ROOT / 'docs' / 'troubleshooting.md').read_text()
    return re.findall(r'^\| `(.+?)` \| fgc_mm \|', page, re.MULTILINE)


def test_quoted_messages_are_those_of_the_code():
    files = [*(ROOT / 'fgc_mm').rglob('*.py'), *(ROOT / 'tools').rglob('*.py'),
             ROOT / 'requirements' / 'install.py']  # fmt: skip
    said = {text for file in files for text in strings(file)}
    said.add((ROOT / 'Makefile').read_text())
    messages = quoted_messages()
    assert len(messages) > 20
    unknown = []
    for message in messages:
        parts = [part.strip(' :') for part in message.split('...')]
        parts = [part for part in parts if len(part) > 3]
        if not any(all(part in text for part in parts) for text in said):
            unknown.append(message)
    assert not unknown


def test_pre_commit_runs_the_pinned_ruff():
    config = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())
    for hook in config['repos'][0]['hooks']:
        assert hook['additional_dependencies'] == [f'ruff=={PINNED["ruff"]}']


def test_the_workflow_tests_every_python_and_stack():
    matrix = yaml.safe_load((WORKFLOWS / 'test.yml').read_text())['jobs'][
        'pytest'
    ]['strategy']['matrix']
    named = re.findall(
        r':: Python :: (3\.\d+)', setup_cfg()['metadata']['classifiers']
    )
    assert matrix['python'] == named
    assert setup_cfg()['options']['python_requires'] == '>=3.10,<3.14'
    for stack in matrix['stack']:
        assert stack in setup_cfg()['options.extras_require']
        assert (ROOT / f'requirements/constraints-{stack}.txt').is_file()


@pytest.mark.parametrize('name', ['lint', 'test', 'docs'])
def test_workflows_are_yaml(name):
    workflow = yaml.safe_load((WORKFLOWS / f'{name}.yml').read_text())
    assert workflow['name'] == name and workflow['jobs']


def test_what_the_docs_need_is_pinned():
    extra = setup_cfg()['options.extras_require']['docs'].split()
    assert extra and all(name in PINNED for name in extra)


def test_every_command_is_in_the_reference():
    page = (ROOT / 'docs' / 'tools.md').read_text()
    assert [name for name in COMMANDS if f'`fgc-mm {name}`' not in page] == []


def test_switches_of_a_loss_are_those_of_its_base_class():
    page = (ROOT / 'docs' / 'new_method.md').read_text()
    named = re.findall(r'`(\w+) = True`', page)
    assert len(named) == 3
    assert [name for name in named if not hasattr(GateLoss, name)] == []
