"""Short names of rows, for legends."""

from collections.abc import Collection, Sequence

NAMES = {
    'bas': 'BAS',
    'dense': 'dense',
    'fbs': 'FBS',
    'fgc': 'FGC',
    'fgcplus': 'our recipe',
    'ftwt': 'FTWT',
    'manidp': 'ManiDP',
}
STATIC = {
    'bn_scale': 'static, BatchNorm scale',
    'fpgm': 'static, FPGM',
    'group_norm': 'static, group norm',
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
    'fgcplus_wide_teacher_groups_8': 'our recipe, wide teacher, groups of 8',
    'fgcplus_without_coupling': 'our recipe',
    'fgcplus_resnet20': 'our recipe, with coupling',
}


def method_of(row: str, gated: bool = False) -> str:
    """The method of a row whose name begins with it; else the name.

    A gated row is of no static method.
    """
    for beginning, name in STATIC.items():
        if not gated and f'{row}_'.startswith(f'{beginning}_'):
            return name
    return NAMES.get(row.partition('_')[0], row)


def row_labels(
    rows: Sequence[str], gated: Collection[str] = ()
) -> dict[str, str]:
    """The label of each row, or the row's name if others have that label.

    Rows with gates are in ``gated``, too.
    """
    methods = {row: _label_of(row, row in gated) for row in rows}
    count = [*methods.values()].count
    return {
        row: row if count(method) > 1 else method
        for row, method in methods.items()
    }


def _label_of(row: str, gated: bool) -> str:
    for beginning, name in VARIANTS.items():
        if row.startswith(beginning):
            return name
    return method_of(row, gated)
