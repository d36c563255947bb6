"""Short names of rows, for legends."""

from collections.abc import Sequence

NAMES = {
    'bas': 'BAS',
    'bn': 'static, BatchNorm scale',
    'dense': 'dense',
    'fbs': 'FBS',
    'fgc': 'FGC',
    'fgcplus': 'our recipe',
    'fpgm': 'static, FPGM',
    'ftwt': 'FTWT',
    'group': 'static, group norm',
    'manidp': 'ManiDP',
    'random': 'static, random',
    'sfp': 'static, SFP',
}
# beginnings of the names of rows that are variants of a method
VARIANTS = {
    'dense_cosine': 'dense, cosine rate',
    'dense_distilled': 'dense, with a teacher',
    'fgcplus_distilled_without_coupling': 'our recipe, with a teacher',
    'fgcplus_distilled_resnet20': 'our recipe, with teacher and coupling',
    'dense_wide_teacher': 'dense, with a wide teacher',
    'fgcplus_wide_teacher_without_coupling': 'our recipe, with a wide teacher',
    'fgcplus_without_coupling': 'our recipe',
    'fgcplus_resnet20': 'our recipe, with coupling',
}


def method_of(row: str) -> str:
    """The method of a row whose name begins with it; else the name."""
    return NAMES.get(row.partition('_')[0], row)


def row_labels(rows: Sequence[str]) -> dict[str, str]:
    """The label of each row, or the row's name if others have that label."""
    methods = {row: _label_of(row) for row in rows}
    count = [*methods.values()].count
    return {
        row: row if count(method) > 1 else method
        for row, method in methods.items()
    }


def _label_of(row: str) -> str:
    named = [
        v for beginning, v in VARIANTS.items() if row.startswith(beginning)
    ]
    return named[0] if named else method_of(row)
