"""Measuring for every site whether skipping channels is faster."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from fgc_mm.deploy.dynamic.dynamic_plan import (
    BATCH,
    DENSE,
    DYNAMIC,
    LOOP,
    MODULES,
    PROGRAM,
    SiteReport,
)
from fgc_mm.deploy.dynamic.programs import ExecutableProgram
from fgc_mm.deploy.graph.ir import GATE, lists_in
from fgc_mm.sites import GateSite

MAX_IMAGES = 6
REPEATS = 5
# A run shorter than this is repeated up to this number of times as often.
SECONDS, MOST_ROUNDS = 0.1, 10
# A batch must take less than this fraction of the time of single images to
# run at once, since only one batch size is measured.
BATCH_MARGIN = 0.98
# Variants in which a site's layers are timed: closed channels are skipped, all
# are computed and masked, or there are no gates.
SKIPPING, MASKED, PLAIN = 'skipping', 'masked', 'plain'


@torch.no_grad()
def calibrate(backbone: Any, images: Tensor) -> None:
    """Choose sites, threads and the handling of batches; fill in the plan.

    Args:
        backbone: The dynamic backbone, whose ``plan`` is filled in.
        images: (N, 3, H, W).
    """
    images = images[:MAX_IMAGES]
    singles = images.split(1)
    plan = backbone.plan
    variants = _variants(backbone, singles[0])
    for program in variants.values():
        if isinstance(program, str):
            use_modules(backbone, program)
            return
    plan.alone = []
    if torch.get_num_threads() > 1:
        plan.alone = choose_single_threaded(
            backbone.program(singles[0]),
            singles[0],
            backbone.set_single_threaded,
            partial(_run_each, backbone, singles),
        )
    plan.sites = _compare_sites(backbone, variants, singles)
    _check_whole_network(backbone, singles)
    chosen = backbone.program(singles[0])
    if isinstance(chosen, str):
        use_modules(backbone, chosen)
        return
    _choose_executor(backbone, singles)
    if plan.executor == PROGRAM and len(images) > 1 and _skips(backbone):
        plan.batch_ms = _compare_batches(backbone, images)
        together = plan.batch_ms[BATCH] < BATCH_MARGIN * plan.batch_ms[LOOP]
        plan.batch = backbone.batch = BATCH if together else LOOP


def use_modules(backbone: Any, why: str) -> None:
    """Switch to the network's own modules, masked, and record why."""
    backbone.plan.executor = backbone.executor = MODULES
    backbone.plan.executor_why = why
    backbone.plan.sites = {
        site.name: SiteReport(DENSE, why) for site in backbone.sites
    }


def _skips(backbone: Any) -> bool:
    return len(backbone.dense) < len(backbone.sites)


def _median_seconds(
    run: Callable[[], Any],
    choose: Callable[[Any], None],
    choices: Sequence[Any],
) -> list[float]:
    """Median times of runs with each choice, alternating after a warm-up.

    Short runs are repeated more often, so that other work on the machine
    disturbs a few of them only.
    """
    seconds: list[list[float]] = [[] for _ in choices]

    def time_each() -> None:
        for choice, taken in zip(choices, seconds):
            choose(choice)
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)

    time_each()
    for taken in seconds:
        taken.clear()
    time_each()
    rounds = SECONDS / min(map(min, seconds)) / REPEATS
    for _ in range(REPEATS * max(1, min(MOST_ROUNDS, round(rounds))) - 1):
        time_each()
    return [median(taken) for taken in seconds]


def _run_each(backbone: Any, singles: Sequence[Tensor]) -> None:
    for image in singles:
        backbone(image)


def choose_single_threaded(
    program: ExecutableProgram,
    image: Tensor,
    choose: Callable[[Sequence[str]], None],
    run: Callable[[], Any],
) -> list[str]:
    """Steps that run on one thread: the fastest of three choices.

    None does, all do, or those that are slower on several threads.

    Args:
        program: Its steps are timed.
        image: (1, 3, H, W), for the times of single steps.
        choose: Sets the names of the steps that run on one thread.
        run: What is timed with each choice.
    """
    taken = []
    for names in ((), program.names):
        choose(names)
        taken.append(program.seconds(image, REPEATS))
    slower = [
        name
        for name, shared, alone in zip(program.names, *taken)
        if _is_faster(alone, shared)
    ]
    choices = [(), program.names, slower]
    medians = _median_seconds(run, choose, choices)
    best = list(choices[medians.index(min(medians))])
    choose(best)
    return best


def _variants(backbone: Any, image: Tensor) -> dict[str, Any]:
    """A program that skips, one that masks, and one without gates."""
    names = [site.name for site in backbone.sites]
    all_dense = dict.fromkeys(names, 'it is masked')
    return {
        SKIPPING: backbone.program(image),
        MASKED: backbone.program(image, dense=all_dense),
        PLAIN: backbone.program(image, gated=False),
    }


def _compare_sites(
    backbone: Any,
    variants: dict[str, ExecutableProgram],
    singles: Sequence[Tensor],
) -> dict[str, SiteReport]:
    """Times of every site's steps in all variants, and the decision."""
    keep = _keep_ratios(variants[SKIPPING], backbone, singles)
    steps = _steps_of_sites(variants[SKIPPING], backbone.sites)
    times = _times(variants, singles)
    why_dense = variants[SKIPPING].why_dense
    reports = {}
    for name, shares in steps.items():
        if name in why_dense:
            why = why_dense[name]
            reports[name] = SiteReport(DENSE, why, keep_ratio=keep[name])
            continue
        ms = {
            variant: 1e3 * sum(taken[step] * shares[step] for step in shares)
            for variant, taken in times.items()
        }
        reports[name] = _site_report(ms, keep[name])
    backbone.dense = {
        name: report.why
        for name, report in reports.items()
        if report.executed == DENSE
    }
    return reports


def _keep_ratios(
    program: ExecutableProgram, backbone: Any, singles: Sequence[Tensor]
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
    program: ExecutableProgram, sites: Sequence[GateSite]
) -> dict[str, dict[str, float]]:
    """Names of each site's steps, with weights below 1 for shared ones."""
    sites_of: defaultdict[str, set[str]] = defaultdict(set)
    by_decision = {site.decision: site.name for site in program.graph.sites}
    for name, node in zip(program.names, program.nodes):
        own = sites_of[name]
        if name.startswith(GATE):
            own.add(name.removeprefix(GATE))
        for channels in (node.reads, node.writes):
            own |= {by_decision[x.decision] for x in lists_in(channels)}
    return {
        site.name: {
            name: 1 / len(own)
            for name, own in sites_of.items()
            if site.name in own
        }
        for site in sites
    }


def _times(
    variants: Mapping[str, ExecutableProgram], singles: Sequence[Tensor]
) -> dict[str, defaultdict[str, float]]:
    """Seconds per step name, averaged over the images."""
    taken: dict[str, list[list[float]]] = {variant: [] for variant in variants}
    for image in singles:
        for _ in range(REPEATS):
            for variant, program in variants.items():
                taken[variant].append(program.seconds(image, 1))
    times = {}
    for variant, program in variants.items():
        steps = torch.tensor(taken[variant], dtype=torch.float64)
        least = steps.reshape(len(singles), REPEATS, -1).amin(1)
        times[variant] = defaultdict[str, float](float)
        for name, seconds in zip(program.names, least.mean(0).tolist()):
            times[variant][name] += seconds
    return times


def _is_faster(skipping: float, whole: float) -> bool:
    return skipping < whole


def _digits(ms: float) -> str:
    return f'{ms:.2f}' if ms >= 1 else f'{ms:.2g}'


def _site_report(ms: dict[str, float], keep: float) -> SiteReport:
    why = (
        f'its layers take {_digits(ms[SKIPPING])} ms with {keep:.0%} of the '
        f'channels open, {_digits(ms[MASKED])} ms with all of them masked, '
        f'and {_digits(ms[PLAIN])} ms without the gate'
    )
    return SiteReport(
        DYNAMIC if _is_faster(ms[SKIPPING], ms[MASKED]) else DENSE,
        why,
        ms[SKIPPING],
        ms[MASKED],
        ms[PLAIN],
        keep,
    )


def _check_whole_network(backbone: Any, singles: Sequence[Tensor]) -> None:
    """Make all sites dense if skipping does not make the network faster."""
    if not _skips(backbone):
        return
    sites = backbone.plan.sites
    chosen = backbone.dense
    all_dense = {name: report.why for name, report in sites.items()}
    skipping, whole = _median_seconds(
        partial(_run_each, backbone, singles),
        partial(setattr, backbone, 'dense'),
        (chosen, all_dense),
    )
    if _is_faster(skipping, whole):
        backbone.dense = chosen
        return
    backbone.dense = all_dense
    ms = [1e3 * taken / len(singles) for taken in (skipping, whole)]
    for report in sites.values():
        if report.executed == DYNAMIC:
            report.executed = DENSE
            report.why += (
                f', but the whole network takes {ms[0]:.2f} ms with skipping '
                f'and {ms[1]:.2f} ms without'
            )


def _choose_executor(backbone: Any, singles: Sequence[Tensor]) -> None:
    """Choose between the program and the backbone's own modules."""
    plan, program = backbone.plan, backbone.program(singles[0])
    seconds = _median_seconds(
        partial(_run_each, backbone, singles),
        partial(setattr, backbone, 'executor'),
        (PROGRAM, MODULES),
    )
    ms = [1e3 * taken / len(singles) for taken in seconds]
    plan.executor = PROGRAM if _is_faster(*ms) else MODULES
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
    """Milliseconds per image of both ways to run a batch."""
    names = (LOOP, BATCH)
    seconds = _median_seconds(
        partial(backbone.forward_gated, images),
        partial(setattr, backbone, 'batch'),
        names,
    )
    return {
        name: 1e3 * taken / len(images) for name, taken in zip(names, seconds)
    }
