"""Tests one trained network at several thresholds of its gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from fgc_mm.errors import FGCError

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# columns of a sweep, and the metrics of a test that they show
METRICS = dict(
    accuracy='accuracy/top1',
    macs='macs/mean',
    pruning_ratio='macs/pruning_ratio',
    keep_ratio='macs/keep_ratio',
)


def sweep_thresholds(
    runner: Runner, thresholds: Sequence[float] = THRESHOLDS
) -> list[dict[str, float]]:
    """Tests the runner's model at each threshold, without training.

    Args:
        runner: Has a gated model, whose weights are loaded or will be
            loaded by the test; the thresholds are restored afterwards.
        thresholds: Probabilities above which a gate opens a channel.

    Returns:
        One dict per threshold: ``threshold``, ``accuracy`` (top-1, percent),
        ``macs`` (mean per image), ``pruning_ratio`` (percent) and
        ``keep_ratio``.

    Raises:
        FGCError: A threshold is not in (0, 1), the model has no gates or
            gates without a threshold, or the test does not measure the top-1
            accuracy or the MACs.
    """
    check_thresholds(thresholds)
    gates = _gates(runner)
    original = [gate.threshold for gate in gates]
    try:
        return [_test_at(runner, gates, value) for value in thresholds]
    finally:
        for gate, threshold in zip(gates, original):
            gate.threshold = threshold


def check_thresholds(thresholds: Sequence[float]) -> None:
    """Checks that the thresholds are between 0 and 1.

    Raises:
        FGCError: One is not.
    """
    for threshold in thresholds:
        if not 0 < threshold < 1:
            raise FGCError(
                f'--thresholds {threshold} is not a probability; give numbers '
                'between 0 and 1.'
            )


def _gates(runner: Runner) -> list[Any]:
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    gates = getattr(getattr(model, 'backbone', None), 'gates', None)
    if gates is None:
        raise FGCError(
            f'the model of {runner.cfg.filename} has no gates; give the '
            'config of a gated model.'
        )
    deciding = [gate for gate in gates.values() if not _is_constant(gate)]
    if not deciding:
        raise FGCError(
            f'no gate of {runner.cfg.filename} decides anything, so a '
            'threshold changes nothing; give the config of the network '
            'before it was compacted.'
        )
    for gate in deciding:
        if not isinstance(getattr(gate, 'threshold', None), float):
            raise FGCError(
                f'{type(gate).__name__} has no threshold to change; its '
                'budget is set when it is trained.'
            )
    return deciding


def _is_constant(gate: Any) -> bool:
    """Whether all channels are fixed, so that nothing is in the wrapper."""
    while hasattr(gate, 'gate'):
        gate = gate.gate
    return gate is None


def _test_at(
    runner: Runner, gates: Sequence[Any], threshold: float
) -> dict[str, float]:
    for gate in gates:
        gate.threshold = threshold
    metrics = runner.test()
    missing = [name for name in METRICS.values() if name not in metrics]
    if missing:
        raise FGCError(
            f'the test of {runner.cfg.filename} has no {", ".join(missing)}; '
            "add dict(type='Accuracy') and dict(type='fgc_mm.DynamicMACs') "
            'to test_evaluator.'
        )
    columns = {key: float(metrics[name]) for key, name in METRICS.items()}
    return dict(threshold=threshold, **columns)
