"""How often the calibration repeats what it times."""

import pytest

from fgc_mm.deploy.dynamic import calibrate


class Clock:
    """A time that passes only in the runs."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(
    ('seconds', 'repeats'), [(1.0, 5), (0.02, 5), (0.005, 20), (1e-4, 50)]
)
def test_short_runs_are_repeated_more_often(monkeypatch, seconds, repeats):
    clock, chosen = Clock(), []
    monkeypatch.setattr(calibrate, 'time', clock)

    def run():
        clock.now += seconds * (1 + chosen[-1])

    medians = calibrate._median_seconds(run, chosen.append, [0, 1])
    assert medians == pytest.approx([seconds, 2 * seconds])
    # alternating, after a run of each that does not count
    assert chosen == [0, 1] * (1 + repeats)


def test_other_work_disturbs_few_runs(monkeypatch):
    """The machine is busy during 10 of the first choice's runs."""
    clock, chosen = Clock(), []
    monkeypatch.setattr(calibrate, 'time', clock)

    def run():
        busy = chosen[-1] == 0 and 4 < len(chosen) <= 24
        clock.now += 0.1 if busy else 1e-3 * (1 + chosen[-1])

    first, second = calibrate._median_seconds(run, chosen.append, [0, 1])
    assert first == pytest.approx(1e-3) and second == pytest.approx(2e-3)
