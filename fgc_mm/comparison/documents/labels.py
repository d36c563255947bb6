"""What documents call the rows of a plan."""

from ..study import Study
from ..table import Results

NAMES = {
    'bas': 'BAS',
    'dense': 'dense',
    'fbs': 'FBS',
    'fgc': 'FGC',
    'fgcplus': 'fgcplus',
    'ftwt': 'FTWT',
    'manidp': 'ManiDP',
}
STATIC = {
    'bn_scale': 'static (BatchNorm scale)',
    'fpgm': 'static (FPGM)',
    'group_norm': 'static (group norm)',
    'random': 'static (random)',
    'sfp': 'static (SFP)',
}


def method_of(row: str, gated: bool = False) -> str:
    """The method of a row whose name begins with it; else the name.

    A gated row is of no static method.
    """
    for beginning, name in STATIC.items():
        if not gated and f'{row}_'.startswith(f'{beginning}_'):
            return name
    return NAMES.get(row.partition('_')[0], row)


def row_labels(study: Study, results: Results) -> dict[str, str]:
    """What each row is called: its label, else its method.

    Rows that would be called the same are called by their names.
    """
    gated = {result['method'] for result in results if result['dynamic']}
    labels = {
        entry.row: entry.label or method_of(entry.row, entry.row in gated)
        for entry in study.entries
    }
    count = [*labels.values()].count
    return {
        row: row if count(label) > 1 else label
        for row, label in labels.items()
    }
