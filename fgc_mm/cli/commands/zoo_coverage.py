"""Tests gates on every backbone that the installed mmpretrain lists."""

import argparse
import copy
import json
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mmpretrain
import torch
import torch_pruning as tp
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import MODELS
from rich.progress import track
from torch import Tensor, nn

from fgc_mm.cli import coverage_rows
from fgc_mm.comparison.markdown import markdown_table
from fgc_mm.errors import FGCError
from fgc_mm.functional import macs_per_image, spread_mask
from fgc_mm.models import GatedBackbone, build_macs_table
from fgc_mm.reliability.atomic_file import check_writable, write_atomically
from fgc_mm.sites import SiteLayer
from fgc_mm.sites.image_size import small_images
from fgc_mm.sites.probed_backbone import tensors

ENCODERS = 'backbone', 'image_encoder', 'vision_backbone', 'vision_encoder'
COMPARISON = 'MACs against the smaller network'
GATE = dict(type='fgc_mm.BinaryConcreteGate')


@dataclass
class Row:
    """Result for one backbone.

    Attributes:
        backbone: Class of the backbone.
        result: ``'passed'``, ``'no site'`` or ``'failed'``.
        reason: Why it did not pass.
        image: Size of the test image.
        sites: Number of sites.
        governed: Fraction of the dense MACs in layers whose width a site
            reduces.
        macs: ``'equal'`` to those of the smaller network, or why that could
            not be built.
        seconds: Time of the search for sites.
    """

    backbone: str
    result: str
    reason: str = ''
    image: str = ''
    sites: int = 0
    governed: float = 0.0
    macs: str = ''
    seconds: float = 0.0


def headless(backbone: nn.Module) -> nn.Module:
    """A classifier that ends with its backbone."""
    return nn.Sequential(OrderedDict(backbone=backbone))


def examine(config: dict, answers: Connection) -> None:
    """Wrap one backbone and test it; rows are sent as they become known."""
    kind = str(config['type'])
    torch.manual_seed(0)
    try:
        backbone = MODELS.build(config)
    except Exception as error:
        reason = f'mmpretrain cannot build it ({type(error).__name__})'
        answers.send(Row(kind, 'failed', reason))
        return
    answers.send(Row(kind, 'failed', 'no answer in time'))
    started = time.monotonic()
    try:
        gated = GatedBackbone(backbone, GATE)
    except FGCError as error:
        answers.send(Row(kind, *refusal(str(error))))
        return
    seconds = time.monotonic() - started
    gated.eval()
    images = small_images(gated.backbone)
    table = build_macs_table(headless(gated), tuple(images.shape[1:]))
    shrunk = [x.dense for x in table.layers if x.sites]
    wrong = find_error(gated, images)
    row = Row(
        kind,
        'failed' if wrong else 'passed',
        wrong,
        'x'.join(map(str, images.shape[2:])),
        len(gated.sites),
        sum(shrunk) / table.dense,
        'not compared: torch-pruning took too long',
        seconds,
    )
    answers.send(row)
    answers.send(replace(row, macs=compare_macs(gated, images)))


def refusal(sentence: str) -> tuple[str, str]:
    """Result and short reason for an error of the site search."""
    if 'fails on an image' in sentence:
        return 'failed', 'it does not run on images alone'
    if 'parallel branches' in sentence:
        return 'no site', 'parallel branches are summed for deployment'
    if 'has no layer' in sentence:
        return 'no site', 'channels are mixed or summed everywhere'
    if 'computed more than' in sentence:
        return 'failed', 'the search computes too much'
    return 'failed', sentence


@torch.no_grad()
def find_error(gated: GatedBackbone, images: Tensor) -> str:
    """Description of the first failed check; empty if there is none."""
    learned = copy.deepcopy(gated.gates.state_dict())
    gate: Any
    for gate in gated.gates.values():
        gate.expand.weight.zero_()
        gate.expand.bias.fill_(1)
    if not equal(run(gated, images), run(gated.backbone, images)):
        return 'with all gates open it differs from the dense network'
    gated.gates.load_state_dict(learned)
    outputs, records = run(gated.forward_gated, images)
    for record in records:
        for output in record.site.outputs:
            overwrite(gated.backbone, output, record.mask[0] == 0)
    if not equal(outputs, run(gated, images)):
        return 'closed channels have an influence'
    return ''


def run(forward: Callable, images: Tensor) -> Any:
    """Run with a fixed seed; some pre-training backbones mask at random."""
    torch.manual_seed(0)
    return forward(images)


def overwrite(backbone: nn.Module, output: SiteLayer, closed: Tensor) -> None:
    """Replace the weights that a layer uses for closed channels."""
    layer: Any = backbone.get_submodule(output.path)
    closed = rows_of(output, closed)
    layer.weight[closed] = 10 * torch.randn_like(layer.weight[closed])
    if layer.bias is not None:
        layer.bias[closed] += 5


def rows_of(output: SiteLayer, closed: Tensor) -> Tensor:
    """Which of a layer's outputs belong to a site's closed channels."""
    return ~spread_mask(~closed[None], output.positions)[0]


def compare_macs(gated: GatedBackbone, images: Tensor) -> str:
    """Compare the MACs with those of the network pruned by torch-pruning."""
    table = build_macs_table(headless(gated), tuple(images.shape[1:]))
    masks = [torch.rand(1, site.channels) > 0.5 for site in gated.sites]
    for mask in masks:
        mask[0, 0] = True  # a layer must keep a channel
    try:
        small = remove(gated, images, masks)
        left = build_macs_table(headless(small), tuple(images.shape[1:]))
    except Exception as error:
        return f'torch-pruning cannot remove channels ({type(error).__name__})'
    ours = macs_per_image(table, masks).item() - table.gates
    if ours == left.dense:
        return 'equal'
    grouped = any(
        1 < getattr(m, 'groups', 1) < m.in_channels
        for m in gated.backbone.modules()
        if isinstance(m, nn.Conv2d)
    )
    reason = 'it removes whole groups' if grouped else 'it removes others too'
    return f'{ours / left.dense:.4f} of the smaller network ({reason})'


def remove(
    gated: GatedBackbone, images: Tensor, masks: list[Tensor]
) -> nn.Module:
    """The backbone without the closed channels."""
    network = copy.deepcopy(gated.backbone)
    for module in network.modules():
        module._forward_pre_hooks.clear()
    network.eval()
    # its graph is that of autograd, which would stop at frozen stages
    images = images.clone().requires_grad_()
    graph = tp.DependencyGraph().build_dependency(network, images)
    for site, mask in zip(gated.sites, masks):
        layer = network.get_submodule(site.producer)
        (output,) = (m for m in site.outputs if m.path == site.producer)
        closed = rows_of(output, ~mask[0]).nonzero().flatten().tolist()
        prune = graph.get_pruner_of_module(layer).prune_out_channels
        graph.get_pruning_group(layer, prune, closed).prune()
    return network


def equal(first: object, second: object) -> bool:
    """Whether two outputs are the same, bit for bit."""
    pairs = zip(tensors(first), tensors(second), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def list_backbones(pattern: str | None) -> Iterator[tuple[str, dict | Row]]:
    """(model, backbone config) of every model that mmpretrain lists.

    If there is no config, a row with the reason is yielded instead.
    """
    for name in mmpretrain.list_models(pattern):
        try:
            model = ModelHub.get(name).config.model.to_dict()
        except Exception as error:
            reason = f'its config cannot be read ({type(error).__name__})'
            yield name, Row('-', 'failed', reason)
            continue
        none = Row(model['type'], 'no site', 'the model has no backbone')
        yield name, backbone_of(model) or none


def backbone_of(model: dict) -> dict | None:
    """The backbone's config, which some models call an image encoder."""
    for key in ENCODERS:
        found = model.get(key)
        if isinstance(found, list):
            found = found[0]  # the encoder, then its neck
        if isinstance(found, dict):
            return backbone_of(found) or found
    return None


def in_a_process(config: dict, seconds: float) -> Row:
    """Examine in a separate process, with a time limit for each part."""
    failed = partial(Row, str(config['type']), 'failed')
    examined = partial(examine, config)
    return coverage_rows.in_a_process(
        examined, failed, seconds, 'not built in time'
    )


def write_report(rows: dict[str, Row], path: Path) -> None:
    """The summary and the table, as Markdown."""
    results = Counter(row.result for row in rows.values())
    reasons = Counter(
        f'{row.result}: {row.reason}' for row in rows.values() if row.reason
    )
    macs = Counter(r.macs for r in rows.values() if r.result == 'passed')
    head = [
        'model', 'backbone', 'result', 'sites', 'fraction of MACs in sites',
        COMPARISON, 'search (s)',
    ]  # fmt: skip
    cells = [
        [
            name, r.backbone, f'{r.result}{r.reason and ": "}{r.reason}',
            str(r.sites), f'{r.governed:.1%}', r.macs, f'{r.seconds:.1f}',
        ]
        for name, r in sorted(rows.items())
    ]  # fmt: skip
    counts = [[reason, str(n)] for reason, n in reasons.most_common()]
    compared = [[text, str(n)] for text, n in macs.most_common()]
    lines = [
        "# Gates on mmpretrain's backbones",
        '',
        f'mmpretrain {mmpretrain.__version__}, torch {torch.__version__}, '
        f'torch-pruning {tp.__version__}; written by '
        '`fgc-mm coverage sites`.',
        '',
        f'{len(rows)} models: {results["passed"]} passed, '
        f'{results["no site"]} have no site, {results["failed"]} failed.',
        '',
        '*Passed*: with all gates open the output equals that of the dense '
        'network bit for bit, and closed channels have no influence on the '
        'output.',
        '',
        markdown_table(['not passed', 'models'], counts),
        'For the models that passed, the MACs under random masks were '
        'compared with those of the smaller network from which torch-pruning '
        'has removed the closed channels:',
        '',
        markdown_table([COMPARISON, 'models'], compared),
        markdown_table(head, cells),
    ]
    write_atomically('\n'.join(lines).encode(), path)


def main(args: argparse.Namespace) -> None:
    """Examine backbones that have no row yet, then write the report."""
    models = list(list_backbones(args.pattern))
    if not models:
        raise FGCError(
            f'--pattern {args.pattern!r} matches no model of mmpretrain; '
            'mmpretrain.list_models() lists them.'
        )
    check_writable(args.report)
    store = coverage_rows.StoredRows(args.rows, Row)
    rows = {}
    for name, config in track(models, 'examining'):
        if isinstance(config, Row):
            rows[name] = config
            continue
        # many models share a backbone
        key = json.dumps(config, sort_keys=True, default=str)
        rows[name] = store.find(
            key, partial(in_a_process, config, args.seconds)
        )
    write_report(rows, args.report)
    print(f'{args.report}: {dict(Counter(r.result for r in rows.values()))}')
