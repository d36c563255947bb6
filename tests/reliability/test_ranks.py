"""Which process reports errors."""

import pytest

from fgc_mm.reliability import ranks


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setattr(ranks, '_alone', False)
    for name in ('TORCHELASTIC_RUN_ID', 'OMPI_COMM_WORLD_RANK', 'RANK'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('SLURM_PROCID', '3')


@pytest.mark.parametrize(
    'launcher, rank', [('none', 0), ('srun -n2', 0), ('slurm', 3), ('mpi', 3)]
)
def test_several_commands_under_one_srun(launcher, rank):
    ranks.set_launcher(launcher)
    assert ranks.started_rank() == rank
    assert ranks.reports_errors() == (rank == 0)


def test_processes_of_torchrun(monkeypatch):
    ranks.set_launcher('none')
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'x')
    monkeypatch.setenv('RANK', '1')
    assert ranks.started_rank() == 1
