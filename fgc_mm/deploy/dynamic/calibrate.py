"""Does skipping pay? Measured once, site by site."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.deploy.dynamic.layers import DynamicConv, DynamicLayer
from fgc_mm.deploy.dynamic.plan import (
    BATCH,
    DENSE,
    DYNAMIC,
    LOOP,
    MODULES,
    PROGRAM,
    DynamicPlan,
    SiteReport,
)
from fgc_mm.deploy.dynamic.port import DynamicPort

MOST_IMAGES = 6
REPEATS = 5
# A batch that runs as one must be this much faster: it is measured at one
# size only.
MARGIN = 0.98
# How a site's layers are timed: closed channels skipped; computed and masked;
# without gates.
SKIPPING, MASKED, PLAIN = 'skipping', 'masked', 'plain'


def calibrate(dynamic: Any, images: Tensor, reasons: dict[str, str]) -> None:
    """Choose engines, sites and what to do with batches; note it all.

    Args:
        dynamic: The dynamic model; changed, its ``plan`` filled in.
        images: (N, 3, H, W).
        reasons: Why sites cannot be dynamic at all.
    """
    images = images[:MOST_IMAGES]
    singles = images.split(1)
    plan, backbone = dynamic.plan, dynamic.backbone
    with torch.no_grad():
        plan.engines = _choose_engines(backbone, singles[0])
        plan.alone = _choose_alone(backbone, singles)
        ports = [port for port in backbone.dynamic_ports if port.compact]
        reports = _compare_sites(backbone, ports, singles)
        for name, why in reasons.items():
            reports[name] = SiteReport(DENSE, why)
        plan.sites = {site.name: reports[site.name] for site in backbone.sites}
        _overrule(backbone, ports, plan.sites, singles)
        _choose_executor(backbone, plan, singles)
        if len(images) > 1 and any(port.compact for port in ports):
            plan.batch_ms = _compare_batches(backbone, images)
            together = plan.batch_ms[BATCH] < MARGIN * plan.batch_ms[LOOP]
            plan.batch = backbone.batch = BATCH if together else LOOP


def _choose_engines(backbone: nn.Module, image: Tensor) -> dict[str, str]:
    """What computes every conv fastest where all channels are there."""
    network, seen = backbone.backbone, {}

    def note(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen[layer] = args[0].clone()

    hooks = [
        layer.register_forward_pre_hook(note)
        for layer in network.modules()
        if isinstance(layer, DynamicConv) and layer.engine_name == 'kernel'
    ]
    network(image)  # the gates asleep
    for hook in hooks:
        hook.remove()
    chosen = {}
    for path, layer in network.named_modules():
        if layer in seen:
            layer.dense_engine = chosen[path] = _faster(layer, seen[layer])
    return chosen


def _faster(layer: DynamicConv, x: Tensor) -> str:
    def run(name: str) -> Callable[[], Tensor]:
        return lambda: layer.engine(name).run(x, None, None)

    names = ('kernel', 'torch')
    seconds = interleaved([run(name) for name in names], REPEATS)
    return names[0] if min(seconds[0]) <= min(seconds[1]) else names[1]


def interleaved(
    runs: Sequence[Callable[[], Any]], repeats: int
) -> list[list[float]]:
    """Seconds of every run, taken in turns after one warm-up each."""
    seconds: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(repeats):
        for run, taken in zip(runs, seconds):
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    return seconds


def _choose_alone(backbone: nn.Module, singles: Sequence[Tensor]) -> list[str]:
    """Steps that several threads do slower than one."""
    program = MODULES
    if backbone.executor == PROGRAM and torch.get_num_threads() > 1:
        program = backbone.program(singles[0])
    if isinstance(program, str):
        return []
    taken = []
    for names in ((), program.names):
        backbone.keep_alone(names)
        taken.append(program.seconds(singles[0], REPEATS))
    slower = [
        name
        for name, shared, alone in zip(program.names, *taken)
        if _pays(alone, shared)
    ]
    choices = [(), program.names, slower]

    def run(names: Sequence[str]) -> None:
        backbone.keep_alone(names)
        for image in singles:
            backbone(image)

    seconds = interleaved(
        [lambda names=names: run(names) for names in choices], REPEATS
    )
    medians = [median(taken) for taken in seconds]
    best = list(choices[medians.index(min(medians))])
    backbone.keep_alone(best)
    return best


def _compare_sites(
    backbone: nn.Module, ports: list[DynamicPort], singles: Sequence[Tensor]
) -> dict[str, SiteReport]:
    """Times of every site's layers in all ways, and what follows."""
    layers = backbone.layers()
    times: dict[str, list[list[float]]] = {}
    keep: list[list[float]] = []
    for image in singles:
        _, records = backbone.forward_gated(image)
        keep.append([(r.mask != 0).float().mean().item() for r in records])
        for way, row in _time_layers(backbone, layers, ports, image).items():
            times.setdefault(way, []).append(row)
    set_compact(ports, True)
    rates = dict(zip([s.name for s in backbone.sites], zip(*keep)))
    means = {
        way: [mean(column) for column in zip(*rows)]
        for way, rows in times.items()
    }
    return {
        port.site.name: _judge(
            {way: _site_ms(port, layers, means[way]) for way in means},
            mean(rates[port.site.name]),
            port,
        )
        for port in ports
    }


def _time_layers(
    backbone: nn.Module,
    layers: list[DynamicLayer],
    ports: list[DynamicPort],
    image: Tensor,
) -> dict[str, list[float]]:
    """Least seconds of every layer for one image, in every way."""
    taken: dict[str, list[list[float]]] = {}
    for _ in range(REPEATS):
        for way in (SKIPPING, MASKED, PLAIN):
            set_compact(ports, way == SKIPPING)
            row = _seconds(backbone, layers, image, way != PLAIN)
            taken.setdefault(way, []).append(row)
    return {
        way: [min(column) for column in zip(*rows)]
        for way, rows in taken.items()
    }


def _seconds(
    backbone: nn.Module,
    layers: list[DynamicLayer],
    image: Tensor,
    gated: bool,
) -> list[float]:
    """Of every layer, with the gates that it asks, in one pass."""
    program = MODULES
    if backbone.executor == PROGRAM:
        program = backbone.program(image, gated=gated)
    if isinstance(program, str):
        for layer in layers:
            layer.seconds = []
        (backbone if gated else backbone.backbone)(image)
        seconds = [sum(layer.seconds) for layer in layers]
        for layer in layers:
            layer.seconds = None
        return seconds
    spent = dict.fromkeys(layers, 0.0)
    for layer, taken in zip(program.layers, program.seconds(image, 1)):
        if layer in spent:
            spent[layer] += taken
    return list(spent.values())


def set_compact(ports: list[DynamicPort], compact: bool) -> None:
    """Let sites skip closed channels, or mask them."""
    for port in ports:
        port.compact = compact


def _site_ms(
    port: DynamicPort, layers: list[DynamicLayer], seconds: list[float]
) -> float:
    total = 0.0
    for layer, taken in zip(layers, seconds):
        sites = [s for s in (layer.reads, layer.writes) if s is not None]
        if port in sites:
            total += 1e3 * taken / len(sites)
    return total


def _pays(skipping: float, whole: float) -> bool:
    return skipping < whole


def _judge(ms: dict[str, float], keep: float, port: DynamicPort) -> SiteReport:
    pays = _pays(ms[SKIPPING], ms[MASKED])
    port.compact = pays
    why = (
        f'its layers take {ms[SKIPPING]:.2f} ms with {keep:.0%} of the '
        f'channels open, {ms[MASKED]:.2f} ms with all of them masked, and '
        f'{ms[PLAIN]:.2f} ms without the gate'
    )
    return SiteReport(
        DYNAMIC if pays else DENSE,
        why,
        ms[SKIPPING],
        ms[MASKED],
        ms[PLAIN],
        keep,
    )


def _overrule(
    backbone: nn.Module,
    ports: list[DynamicPort],
    sites: dict[str, SiteReport],
    singles: Sequence[Tensor],
) -> None:
    """All dense, if the whole network is not faster for the choice."""
    chosen = [port for port in ports if port.compact]

    def run(compact: bool) -> None:
        set_compact(chosen, compact)
        for image in singles:
            backbone.forward_gated(image)

    if not chosen:
        return
    skipping, whole = map(
        median, interleaved([lambda: run(True), lambda: run(False)], REPEATS)
    )
    pays = _pays(skipping, whole)
    set_compact(chosen, pays)
    if pays:
        return
    for port in chosen:
        site = sites[port.site.name]
        site.executed = DENSE
        site.why += (
            f', but the whole network takes {1e3 * skipping:.2f} ms instead '
            f'of {1e3 * whole:.2f} if it skips'
        )


def _choose_executor(
    backbone: nn.Module, plan: DynamicPlan, singles: Sequence[Tensor]
) -> None:
    """One call of the kernel, or the backbone's own code?"""

    def run(executor: str) -> None:
        backbone.executor = executor
        for image in singles:
            backbone(image)

    if backbone.executor == MODULES:
        return
    program = backbone.program(singles[0])
    plan.executor = MODULES
    plan.executor_why = str(program)
    if not isinstance(program, str):
        names = (PROGRAM, MODULES)
        taken = interleaved(
            [lambda name=name: run(name) for name in names], REPEATS
        )
        ms = [1e3 * median(seconds) / len(singles) for seconds in taken]
        plan.executor = PROGRAM if _pays(*ms) else MODULES
        plan.executor_why = (
            f'an image takes {ms[0]:.2f} ms in one call of the kernel, and '
            f"{ms[1]:.2f} ms in the backbone's own code"
        )
    backbone.executor = plan.executor


def _compare_batches(backbone: nn.Module, images: Tensor) -> dict[str, float]:
    def run(batch: str) -> None:
        backbone.batch = batch
        backbone.forward_gated(images)

    names = (LOOP, BATCH)
    seconds = interleaved(
        [lambda name=name: run(name) for name in names], REPEATS
    )
    return {
        name: 1e3 * median(taken) / len(images)
        for name, taken in zip(names, seconds)
    }
