"""Measuring for every site whether skipping channels is faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

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
from fgc_mm.deploy.dynamic.programs import Program
from fgc_mm.deploy.graph.ir import GATE, decisions_of
from fgc_mm.sites import GateSite

MOST_IMAGES = 6
REPEATS = 5
# Running a batch at once must be faster by this factor, since it is measured
# at one batch size only.
MARGIN = 0.98
# Variants in which a site's layers are timed: closed channels skipped; all
# computed and masked; without gates.
SKIPPING, MASKED, PLAIN = 'skipping', 'masked', 'plain'


def calibrate(dynamic: Any, images: Tensor) -> None:
    """Choose sites, threads and the handling of batches; fill in the plan.

    Args:
        dynamic: The dynamic model; ``backbone.dense`` has the sites that
            cannot be dynamic. Its ``plan`` is filled in.
        images: (N, 3, H, W).
    """
    images = images[:MOST_IMAGES]
    singles = images.split(1)
    plan, backbone = dynamic.plan, dynamic.backbone
    with torch.no_grad():
        ways = _ways(backbone, singles[0])
        for program in ways.values():
            if isinstance(program, str):
                run_modules(dynamic, program)
                return
        plan.alone = _choose_alone(backbone, singles)
        reports = _compare_sites(backbone, ways, singles)
        plan.sites = {site.name: reports[site.name] for site in backbone.sites}
        _overrule(backbone, plan.sites, singles)
        chosen = backbone.program(singles[0])
        if isinstance(chosen, str):
            run_modules(dynamic, chosen)
            return
        _choose_executor(backbone, plan, singles)
        if len(images) > 1 and _skips(backbone):
            plan.batch_ms = _compare_batches(backbone, images)
            together = plan.batch_ms[BATCH] < MARGIN * plan.batch_ms[LOOP]
            plan.batch = backbone.batch = BATCH if together else LOOP


def run_modules(dynamic: Any, why: str) -> None:
    """Switch to the network's own modules, masked, and record why."""
    dynamic.plan.executor = dynamic.backbone.executor = MODULES
    dynamic.plan.executor_why = why
    dynamic.plan.sites = {
        site.name: SiteReport(DENSE, why) for site in dynamic.backbone.sites
    }


def _skips(backbone: Any) -> bool:
    return len(backbone.dense) < len(backbone.sites)


def interleaved(
    runs: Sequence[Callable[[], Any]], repeats: int
) -> list[list[float]]:
    """Seconds of every run, alternating after one warm-up each."""
    seconds: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(repeats):
        for run, taken in zip(runs, seconds):
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    return seconds


def _choose_alone(backbone: Any, singles: Sequence[Tensor]) -> list[str]:
    """Steps that are slower on several threads than on one."""
    if torch.get_num_threads() == 1:
        return []
    program, taken = backbone.program(singles[0]), []
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


def _ways(backbone: Any, image: Tensor) -> dict[str, Program | str]:
    """A program that skips, one that masks, and one without gates."""
    everything = {
        site.name: backbone.dense.get(site.name, 'it is masked')
        for site in backbone.sites
    }
    return {
        SKIPPING: backbone.program(image),
        MASKED: backbone.program(image, dense=everything),
        PLAIN: backbone.program(image, gated=False),
    }


def _compare_sites(
    backbone: Any, ways: dict[str, Program], singles: Sequence[Tensor]
) -> dict[str, SiteReport]:
    """Times of every site's steps in all variants, and the decision."""
    keep = _keep_ratios(ways[SKIPPING], backbone, singles)
    steps = _steps_of_sites(ways[SKIPPING], backbone.sites)
    times = _times(ways, singles)
    why_dense = {**ways[SKIPPING].why_dense, **backbone.dense}
    reports = {}
    for site in backbone.sites:
        name = site.name
        if name in why_dense:
            reports[name] = SiteReport(
                DENSE, why_dense[name], keep_ratio=keep[name]
            )
            continue
        ms = {way: 1e3 * _shared(times[way], steps[name]) for way in ways}
        reports[name] = _judge(ms, keep[name])
    backbone.dense = {
        name: report.why
        for name, report in reports.items()
        if report.executed == DENSE
    }
    return reports


def _shared(times: dict[str, float], shares: dict[str, float]) -> float:
    return sum(times.get(step, 0.0) * part for step, part in shares.items())


def _keep_ratios(
    program: Program, backbone: Any, singles: Sequence[Tensor]
) -> dict[str, float]:
    """Fraction of open channels of every site, over the images."""
    runs = [program.run(image)[1] for image in singles]
    return {
        site.name: mean(
            (masks[0] != 0).float().mean().item() for masks in decisions
        )
        for site, decisions in zip(backbone.sites, zip(*runs))
    }


def _steps_of_sites(
    program: Program, sites: Sequence[GateSite]
) -> dict[str, dict[str, float]]:
    """Names of each site's steps, with weights for shared steps."""
    numbers: dict[str, set[str]] = {}
    by_decision = {site.decision: site.name for site in program.graph.sites}
    for name, node in zip(program.names, program.nodes):
        own = numbers.setdefault(name, set())
        if name.startswith(GATE):
            own.add(name.removeprefix(GATE))
        for channels in (node.reads, node.writes):
            for decision in decisions_of(channels):
                own.add(by_decision[decision])
    return {
        site.name: {
            name: 1 / len(own)
            for name, own in numbers.items()
            if site.name in own
        }
        for site in sites
    }


def _times(
    ways: Mapping[str, Program], singles: Sequence[Tensor]
) -> dict[str, dict[str, float]]:
    """Seconds per step name, averaged over the images."""
    least: dict[str, list[list[float]]] = {way: [] for way in ways}
    for image in singles:
        rows: dict[str, list[list[float]]] = {way: [] for way in ways}
        for _ in range(REPEATS):
            for way, program in ways.items():
                rows[way].append(program.seconds(image, 1))
        for way, taken in rows.items():
            least[way].append([min(column) for column in zip(*taken)])
    times: dict[str, dict[str, float]] = {way: {} for way in ways}
    for way, program in ways.items():
        means = [mean(column) for column in zip(*least[way])]
        for name, seconds in zip(program.names, means):
            times[way][name] = times[way].get(name, 0.0) + seconds
    return times


def _pays(skipping: float, whole: float) -> bool:
    return skipping < whole


def _judge(ms: dict[str, float], keep: float) -> SiteReport:
    why = (
        f'its layers take {ms[SKIPPING]:.2f} ms with {keep:.0%} of the '
        f'channels open, {ms[MASKED]:.2f} ms with all of them masked, and '
        f'{ms[PLAIN]:.2f} ms without the gate'
    )
    return SiteReport(
        DYNAMIC if _pays(ms[SKIPPING], ms[MASKED]) else DENSE,
        why,
        ms[SKIPPING],
        ms[MASKED],
        ms[PLAIN],
        keep,
    )


def _overrule(
    backbone: Any, sites: dict[str, SiteReport], singles: Sequence[Tensor]
) -> None:
    """Make all sites dense if the whole network is not faster otherwise."""
    chosen = dict(backbone.dense)
    everything = {name: report.why for name, report in sites.items()}

    def run(dense: dict[str, str]) -> None:
        backbone.dense = dense
        for image in singles:
            backbone(image)

    if not _skips(backbone):
        return
    skipping, whole = map(
        median,
        interleaved([lambda: run(chosen), lambda: run(everything)], REPEATS),
    )
    pays = _pays(skipping, whole)
    backbone.dense = chosen if pays else everything
    if pays:
        return
    for report in sites.values():
        if report.executed == DYNAMIC:
            report.executed = DENSE
            report.why += (
                f', but the whole network takes {1e3 * skipping:.2f} ms '
                f'with skipping and {1e3 * whole:.2f} ms without'
            )


def _choose_executor(
    backbone: Any, plan: DynamicPlan, singles: Sequence[Tensor]
) -> None:
    """Choose between the program and the backbone's own modules."""

    def run(executor: str) -> None:
        backbone.executor = executor
        for image in singles:
            backbone(image)

    program = backbone.program(singles[0])
    names = (PROGRAM, MODULES)
    taken = interleaved(
        [lambda name=name: run(name) for name in names], REPEATS
    )
    ms = [1e3 * median(seconds) / len(singles) for seconds in taken]
    plan.executor = PROGRAM if _pays(*ms) else MODULES
    plan.executor_why = (
        f'an image takes {ms[0]:.2f} ms as a program, and {ms[1]:.2f} ms with '
        "the backbone's own modules"
    )
    if program.fallbacks:
        plan.executor_why += (
            f'; torch computes {len(program.fallbacks)} of its '
            f'{len(program.names)} steps ({program.fallbacks[0]}, ...)'
        )
    backbone.executor = plan.executor
    if plan.executor == MODULES:
        for report in plan.sites.values():
            report.executed = DENSE


def _compare_batches(backbone: Any, images: Tensor) -> dict[str, float]:
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
