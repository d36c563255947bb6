"""When sharded banks are collected; what is collected: coupled ranks."""

from types import SimpleNamespace

import pytest

from fgc_mm.engine.sharded_bank_saver import ShardedBankSaver
from fgc_mm.errors import FGCError


@pytest.fixture
def run():
    """A runner whose saves record the banks; the count of collections."""
    run = SimpleNamespace(count=0, saved=[])

    def collect():
        run.count += 1
        return {'collection': run.count}

    def save(folder, *, full=False):
        if full:
            raise OSError(28, 'No space left on device')
        run.saved.append((folder, run.collector.state()))

    run.runner = SimpleNamespace(save_checkpoint=save)
    run.collector = ShardedBankSaver(run.runner, collect)
    return run


def test_every_save_has_the_banks_of_its_moment(run):
    run.runner.save_checkpoint('a')
    run.runner.save_checkpoint('b')
    assert run.saved == [('a', {'collection': 1}), ('b', {'collection': 2})]


@pytest.mark.parametrize('full', [None, False, True])
def test_banks_are_collected_for_a_save_only(run, full):
    if full is not None:
        try:
            run.runner.save_checkpoint('a', full=full)
        except OSError:
            assert full
    with pytest.raises(FGCError, match='let all ranks call'):
        run.collector.state()
