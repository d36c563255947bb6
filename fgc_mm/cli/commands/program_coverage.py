"""Tests which of mmpretrain's backbones run as one call of the runtime."""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import mmpretrain
import torch
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import MODELS
from rich.progress import track
from torch import nn

from fgc_mm.cli import coverage_rows
from fgc_mm.cli.commands.zoo_coverage import GATE, backbone_of, equal
from fgc_mm.cli.coverage_rows import first_line
from fgc_mm.comparison.markdown import markdown_table
from fgc_mm.deploy.dynamic.model import DynamicBackbone
from fgc_mm.errors import FGCError, check_choice
from fgc_mm.models import GatedBackbone
from fgc_mm.reliability.atomic_file import check_writable, write_atomically
from fgc_mm.sites.image_size import small_images

LEFT_OUT = 'left out'


@dataclass
class Row:
    """Result for one class of backbones.

    Attributes:
        model: The model that was tested.
        result: ``'one call'``, ``'with torch'`` (operations of torch are
            called), ``'no program'``, ``'no site'``, or ``'left out'``: it
            cannot be built, or its features differ from call to call.
        reason: The operations of torch, or why there is no program.
        sites: Number of sites.
        skipping: Number of sites whose closed channels are not computed.
    """

    model: str
    result: str
    reason: str = ''
    sites: int = 0
    skipping: int = 0


def smallest_models() -> dict[str, tuple[str, dict]]:
    """The smallest model of every class, and its backbone's config."""
    found: dict[str, tuple[float, str, dict]] = {}
    for name in mmpretrain.list_models():
        try:
            entry = ModelHub.get(name)
            config = backbone_of(entry.config.model.to_dict())
        except Exception:  # a config that cannot be read
            continue
        if config is None:
            continue
        size = (entry.metadata and entry.metadata.parameters) or float('inf')
        kind = str(config['type'])
        if kind not in found or size < found[kind][0]:
            found[kind] = (size, name, config)
    return {kind: found[kind][1:] for kind in sorted(found)}


def examine(name: str, config: dict) -> Row:
    """Add gates, make a program, and test it."""
    torch.manual_seed(0)
    try:
        backbone = MODELS.build(config)
    except Exception as error:  # of mmpretrain
        return Row(name, LEFT_OUT, f'it cannot be built ({first_line(error)})')
    try:
        gated = GatedBackbone(backbone, GATE).eval()
    except FGCError as error:
        return Row(name, 'no site', str(error).partition(';')[0])
    for gate in gated.gates.values():
        nn.init.normal_(gate.expand.bias)
    image = small_images(gated.backbone)
    with torch.no_grad():
        same = equal(gated(image), gated(image))
    if not same:
        return Row(name, LEFT_OUT, 'its features differ from call to call')
    program = DynamicBackbone(gated, kernel=True).program(image)
    count = len(gated.sites)
    if isinstance(program, str):
        return Row(name, 'no program', program, count)
    skipping = count - len(program.why_dense)
    if not program.fallbacks:
        return Row(name, 'one call', '', count, skipping)
    calls = Counter(text.rpartition(': ')[2] for text in program.fallbacks)
    text = ', '.join(f'{n} x {what}' for what, n in calls.most_common())
    return Row(name, 'with torch', text, count, skipping)


def in_a_process(name: str, config: dict, seconds: float) -> Row:
    """Examine in a separate process, with a time limit."""
    failed = partial(Row, name, 'no program')
    return coverage_rows.in_a_process(
        lambda answers: answers.send(examine(name, config)),
        failed,
        seconds,
        'no answer in time',
    )


def report(rows: dict[str, Row]) -> Iterator[str]:
    """Lines of Markdown."""
    results = Counter(row.result for row in rows.values())
    gated = len(rows) - results['no site'] - results[LEFT_OUT]
    yield "# mmpretrain's backbones as programs"
    yield ''
    yield (
        f'mmpretrain {mmpretrain.__version__}, torch {torch.__version__}; '
        'written by `fgc-mm coverage programs` for the model with the '
        'fewest parameters of every class of backbones.'
    )
    yield ''
    yield (
        f'{len(rows)} classes, of which {gated} have sites and equal features '
        f'at every call: {results["one call"]} run as one call of the '
        f'runtime, {results["with torch"]} as one call that uses torch for '
        f'some operations, and {results["no program"]} as masked PyTorch '
        'modules.'
    )
    yield ''
    head = ['backbone', 'model', 'result', 'sites that skip', 'what else']
    cells = []
    for kind, row in rows.items():
        sites = f'{row.skipping} of {row.sites}' if row.sites else ''
        cells.append([kind, row.model, row.result, sites, row.reason])
    yield markdown_table(head, cells)


def main(args: argparse.Namespace) -> None:
    """Examine models that have no row yet, then write the report."""
    models = smallest_models()
    for kind in args.only or ():
        check_choice(f'--only {kind}', kind, models)
    check_writable(args.report)
    store = coverage_rows.StoredRows(args.rows, Row)
    chosen = [k for k in models if not args.only or k in args.only]
    for kind in track(chosen, 'examining'):
        store.find(kind, partial(in_a_process, *models[kind], args.seconds))
    rows = dict(sorted(store.rows.items()))
    write_atomically('\n'.join(report(rows)).encode(), args.report)
    print(f'{args.report}: {dict(Counter(r.result for r in rows.values()))}')
