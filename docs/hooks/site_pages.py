"""Pages of the site that are generated when MkDocs builds it.

- ``components/*.md``: one entry per class or function that is registered in
  scope ``fgc_mm``, found by its decorator. A component that moves to another
  module, or a new one, needs no change here.
- ``contributing.md`` and ``changelog.md``: the files of the repository's
  root.

Links from a page to a file outside ``docs/`` work on a code host, but have no
target on the site; there the link's text stays.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = 'fgc_mm'

# page of the components: title, and which decorators it collects
PAGES = {
    'models': ('Models', ('MODELS',)),
    'gates': ('Gates', ('MODELS',)),
    'losses': ('Gate losses', ('MODELS',)),
    'hooks': ('Hooks', ('HOOKS',)),
    'data': ('Data sets and transforms', ('DATASETS', 'TRANSFORMS')),
    'others': (
        'Metrics, optimizers, initialisers',
        (
            'METRICS',
            'OPTIM_WRAPPERS',
            'OPTIM_WRAPPER_CONSTRUCTORS',
            'WEIGHT_INITIALIZERS',
        ),
    ),
}
# packages whose models have a page of their own
OWN_PAGE = 'gates', 'losses'
# What is used from Python rather than from a config.
FUNCTIONS = {
    'From a trained model to a faster one': [
        'fgc_mm.deploy.to_dynamic',
        'fgc_mm.deploy.DynamicPlan',
        'fgc_mm.deploy.compact',
        'fgc_mm.deploy.set_keep_ratio',
        'fgc_mm.deploy.firing_statistics',
    ],
    'Sites and records': [
        'fgc_mm.sites.find_sites',
        'fgc_mm.sites.GateSite',
        'fgc_mm.sites.GateRecord',
        'fgc_mm.gates.GateDecision',
        'fgc_mm.gates.ScalingDecision',
        'fgc_mm.losses.GateBatch',
        'fgc_mm.losses.GateLoss',
    ],
    'Detectors and segmentors': [
        'fgc_mm.models.GatedModelMixin',
    ],
    'MACs': [
        'fgc_mm.models.build_macs_table',
        'fgc_mm.functional.MACsTable',
        'fgc_mm.functional.macs_per_image',
        'fgc_mm.functional.expected_macs',
    ],
    'Mathematics': [
        'fgc_mm.functional.binary_concrete',
        'fgc_mm.functional.batch_shaping',
        'fgc_mm.functional.nearest_neighbors',
        'fgc_mm.functional.neighbor_contrast',
        'fgc_mm.functional.mass_mask',
        'fgc_mm.functional.uniform_mask',
        'fgc_mm.memory.MemoryBank',
    ],
    'The runtime without torch': [
        'fgc_mm.runtime.model.Model',
        'fgc_mm.runtime.classifier.Classifier',
        'fgc_mm.runtime.classifier.Prediction',
    ],
}
# their methods are part of the interface
WITH_MEMBERS = {
    'fgc_mm.deploy.DynamicPlan',
    'fgc_mm.functional.MACsTable',
    'fgc_mm.losses.GateLoss',
    'fgc_mm.memory.MemoryBank',
    'fgc_mm.models.gated_backbone.GatedBackbone',
    'fgc_mm.models.gated_classifier.GatedImageClassifier',
    'fgc_mm.runtime.classifier.Classifier',
    'fgc_mm.runtime.model.Model',
}
INTRODUCTION = (
    "Written in a config as `type='fgc_mm.NAME'`, with the options below. "
    'The entries are the docstrings of the code.'
)
ROLE = re.compile(r':(?:func|class|meth|mod|attr|data):<code>~?([^<]+)</code>')
OUTSIDE = re.compile(r'\[([^\]]+)\]\(\.\./[^)]+\)')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    for name, text in generated_pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """A link to a file outside docs/ becomes its text."""
    return OUTSIDE.sub(r'\1', markdown)


def on_page_content(html: str, **_: object) -> str:
    """Sphinx roles of the docstrings become plain code."""
    return ROLE.sub(r'<code>\1</code>', html)


def generated_pages() -> dict[str, str]:
    """Path of each generated page within docs/, and its text."""
    pages = {
        f'components/{name}.md': text
        for name, text in component_pages().items()
    }
    pages['components/functions.md'] = functions_page()
    for name in 'CONTRIBUTING', 'CHANGELOG':
        text = (ROOT / f'{name}.md').read_text().replace('](docs/', '](')
        text = text.replace('](CHANGELOG.md)', '](changelog.md)')
        pages[f'{name.lower()}.md'] = text
    return pages


def component_pages() -> dict[str, str]:
    """Name and text of every page of registered components."""
    found: dict[str, list[str]] = {name: [] for name in PAGES}
    for registry, path in registered():
        found[page_of(registry, path)].append(path)
    return {
        name: '\n\n'.join(
            [
                f'# {PAGES[name][0]}',
                INTRODUCTION,
                *map(entry, sorted(paths, key=last_name)),
            ]
        )
        for name, paths in found.items()
    }


def functions_page() -> str:
    """What is used from Python."""
    parts = ['# Functions and classes']
    for title, paths in FUNCTIONS.items():
        parts += [f'## {title}', *(entry(path, 3) for path in paths)]
    return '\n\n'.join(parts)


def entry(path: str, level: int = 2) -> str:
    """One entry of mkdocstrings."""
    lines = [f'::: {path}', '    options:', f'      heading_level: {level}']
    if path in WITH_MEMBERS:
        lines.append('      members: true')
    return '\n'.join(lines)


def registered() -> Iterator[tuple[str, str]]:
    """Registry and import path of every registered component."""
    for file in sorted((ROOT / PACKAGE).rglob('*.py')):
        module = '.'.join(file.relative_to(ROOT).with_suffix('').parts)
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                for name in registries(node):
                    yield name, f'{module}.{node.name}'


def registries(node: ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    """Names of the registries whose decorator a definition has."""
    for decorator in node.decorator_list:
        text = ast.unparse(decorator)
        if '.register_module(' in text:
            yield text.partition('.')[0]


def page_of(registry: str, path: str) -> str:
    """The page on which a component belongs.

    Raises:
        KeyError: No page collects this registry.
    """
    package = path.split('.')[1]
    if registry == 'MODELS':
        return package if package in OWN_PAGE else 'models'
    for name, (_, collected) in PAGES.items():
        if registry in collected:
            return name
    raise KeyError(f'{path} is registered in {registry}: add it to PAGES')


def last_name(path: str) -> str:
    """Name of a component, by which a page is sorted."""
    return path.rpartition('.')[2]
