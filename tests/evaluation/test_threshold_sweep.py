"""A trained network at several thresholds of its gates."""

from types import SimpleNamespace

import pytest

from fgc_mm.errors import FGCError
from fgc_mm.evaluation.threshold_sweep import sweep_thresholds
from fgc_mm.gates import BinaryConcreteGate, GroupedGate, PartialGate


class FakeRunner:
    """Whose test depends on the gates' thresholds alone."""

    def __init__(self, *gates, **metrics):
        gates = {str(number): gate for number, gate in enumerate(gates)}
        backbone = SimpleNamespace(gates=gates)
        self.model = SimpleNamespace(backbone=backbone)
        self.cfg = SimpleNamespace(filename='x.py')
        self.metrics = metrics

    def test(self):
        gates = self.model.backbone.gates.values()
        (threshold,) = {gate.threshold for gate in gates}
        return {
            'accuracy/top1': 90 - threshold, 'macs/mean': 10 - threshold,
            'macs/pruning_ratio': 100 * threshold,
            'macs/keep_ratio': 1 - threshold, **self.metrics,
        }  # fmt: skip


def gate(threshold):
    return SimpleNamespace(threshold=threshold)


def test_every_gate_moves_and_returns():
    gates = gate(0.5), gate(0.3)
    rows = sweep_thresholds(FakeRunner(*gates), [0.2, 0.7])
    assert rows[1] == dict(
        threshold=0.7, accuracy=89.3, macs=9.3, pruning_ratio=70.0,
        keep_ratio=pytest.approx(0.3),
    )  # fmt: skip
    assert [row['threshold'] for row in rows] == [0.2, 0.7]
    assert [g.threshold for g in gates] == [0.5, 0.3]


def test_thresholds_return_after_an_error():
    runner, own = FakeRunner(gate(0.5)), gate(0.5)
    runner.model.backbone.gates = {'a': own}
    runner.test = dict  # no metrics at all
    with pytest.raises(FGCError, match=r'has no accuracy/top1, macs/mean'):
        sweep_thresholds(runner, [0.4])
    assert own.threshold == 0.5


@pytest.mark.parametrize('value', [0, 1, 1.5, -0.2])
def test_a_threshold_is_a_probability(value):
    with pytest.raises(FGCError, match=rf'--thresholds {value} is no'):
        sweep_thresholds(FakeRunner(gate(0.5)), [0.5, value])


def test_a_network_without_gates_or_thresholds_is_refused():
    runner = FakeRunner()
    runner.model.backbone = object()
    with pytest.raises(FGCError, match=r'the model of x\.py has no gates'):
        sweep_thresholds(runner, [0.4])
    with pytest.raises(FGCError, match='has no threshold'):
        sweep_thresholds(FakeRunner(gate(0.5), object()), [0.4])


def test_gates_without_a_decision_are_left_out():
    constant = PartialGate(None, 4, [], closed=[1])
    grouped = GroupedGate(PartialGate(None, 2, []), (2, 2))
    partial = PartialGate(BinaryConcreteGate(3, 2), 4, [0, 1])
    runner = FakeRunner(constant, partial, grouped)
    seen = []

    def test():
        seen.append((partial.gate.threshold, constant.threshold))
        return {
            'accuracy/top1': 1, 'macs/mean': 1, 'macs/pruning_ratio': 1,
            'macs/keep_ratio': 1,
        }  # fmt: skip

    runner.test = test
    sweep_thresholds(runner, [0.2, 0.7])
    assert seen == [(0.2, None), (0.7, None)]
    assert partial.threshold == 0.5
    with pytest.raises(FGCError, match=r'no gate of x\.py decides anything'):
        sweep_thresholds(FakeRunner(constant, grouped), [0.4])
