"""Stored results as a metafile, from which MIM and mmpretrain list models."""

import re
from pathlib import Path
from typing import Any

import yaml

from fgc_mm.config_files import NAME, list_configs

from ...errors import FGCError
from ..stored_results import read_stored_results
from ..study import Study
from ..table import Row, hardware, rows_of
from .blocks import read_studies
from .labels import method_of

SUFFIXES = '.yml', '.yaml'
SOURCE = re.compile(
    r'^# results of (?P<plan>\S+) in (?P<folder>\S+)$', re.MULTILINE
)
FGC = (
    'Self-Supervised Feature-Gate Coupling for Dynamic Network Pruning',
    '2111.14302',
)
# title, number in arXiv
PAPERS = {
    'bas': (
        'Batch-Shaping for Learning Conditional Channel Gated Networks',
        '1907.06627',
    ),
    'dense': ('Deep Residual Learning for Image Recognition', '1512.03385'),
    'fbs': (
        'Dynamic Channel Pruning: Feature Boosting and Suppression',
        '1810.05331',
    ),
    'fgc': FGC,
    'fgcplus': FGC,
    'ftwt': (
        'Fire Together Wire Together: A Dynamic Pruning Approach with '
        'Self-Supervised Mask Prediction',
        '2110.08232',
    ),
    'manidp': ('Manifold Regularized Dynamic Network Pruning', '2103.05861'),
    'sfp': (
        'Soft Filter Pruning for Accelerating Deep Convolutional Neural '
        'Networks',
        '1808.06866',
    ),
}
# `mim download` takes what follows the last slash as the file of weights: if
# that is empty, it writes the config alone
NOT_PUBLISHED = 'not published/'


def update_metafile(text: str, root: Path) -> str:
    """A metafile, updated from stored results.

    Its comments name them, in lines ``# results of PLAN in FOLDER``. PLAN (or
    several, separated by commas) and FOLDER are relative to ``root``. A model
    is a row of a plan that is a config of the package, with the mean over its
    seeds.

    Raises:
        FGCError: It has no such line, or a plan or a result cannot be read.
    """
    sources = list(SOURCE.finditer(text))
    if not sources:
        raise FGCError(
            'a metafile has no line "# results of PLAN in FOLDER", which says '
            'what it is made of; add it.'
        )
    models = [model for source in sources for model in _models(source, root)]
    prefixes = dict.fromkeys(m['Name'].partition('_')[0] for m in models)
    content = {
        'Collections': [_collection(prefix) for prefix in prefixes],
        'Models': models,
    }
    comments = [line for line in text.splitlines() if line.startswith('#')]
    body = yaml.safe_dump(content, sort_keys=False, width=79)
    return '\n'.join([*comments, body])


def _models(source: re.Match[str], root: Path) -> list[dict[str, Any]]:
    study = read_studies(source['plan'], root)
    results = read_stored_results(root / source['folder'], study)
    known = set(list_configs())
    return [
        _model(row, study)
        for row in rows_of(results)
        if f'{row.method}.py' in known
    ]


def _model(row: Row, study: Study) -> dict[str, Any]:
    data = study.title.partition(' on ')[2] or study.title
    values = row.values
    metrics = {
        'Top 1 Accuracy': round(100 - values['error'].mean, 2),
        'Pruned MACs (%)': round(values['macs/pruning_ratio'].mean, 1),
        'Seeds': len(row.seeds),
    }
    return {
        'Name': row.method,
        'Metadata': {
            'Training Data': data,
            'Epochs': row.epochs,
            'Training Resources': hardware(row),
            # multiply-adds, as mmpretrain counts FLOPs
            'FLOPs': round(values['macs/mean'].mean),
            'Parameters': round(values['parameters'].mean),
            'Weight': NOT_PUBLISHED,
        },
        'In Collection': method_of(row.method),
        'Results': [
            {
                'Task': 'Image Classification',
                'Dataset': data,
                'Metrics': metrics,
            }
        ],
        'Config': f'{NAME}/{row.method}.py',
    }


def _collection(prefix: str) -> dict[str, Any]:
    """A method, with its paper if there is one."""
    collection: dict[str, Any] = {'Name': method_of(prefix)}
    if prefix in PAPERS:
        title, number = PAPERS[prefix]
        url = f'https://arxiv.org/abs/{number}'
        collection['Paper'] = {'Title': title, 'URL': url}
    return collection
