"""Short names of rows, for legends."""

from collections.abc import Sequence

NAMES = {
    'bas': 'BAS',
    'bn': 'static, BatchNorm scale',
    'dense': 'dense',
    'fbs': 'FBS',
    'fgc': 'FGC',
    'fgcplus': 'FGC, our recipe',
    'fpgm': 'static, FPGM',
    'ftwt': 'FTWT',
    'group': 'static, group norm',
    'manidp': 'ManiDP',
    'random': 'static, random',
    'sfp': 'static, SFP',
}


def method_of(row: str) -> str:
    """The method of a row whose name begins with it; else the name."""
    return NAMES.get(row.partition('_')[0], row)


def row_labels(rows: Sequence[str]) -> dict[str, str]:
    """The method of each row, or the row's name if others have that method."""
    methods = {row: method_of(row) for row in rows}
    count = [*methods.values()].count
    return {
        row: row if count(method) > 1 else method
        for row, method in methods.items()
    }
