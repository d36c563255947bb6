"""A run without a training step has failed."""

import pytest
from torch.utils.data import DataLoader

from fgc_mm.errors import FGCError
from fgc_mm.reliability import training_steps_hook

SMALL = 'batch_size=41 with drop_last=True leaves no training step of 40'


def refused(digits, folder, **options):
    """The sentence of a run that does not train."""
    with pytest.raises(FGCError) as error:
        digits.start(digits.tiny_config(folder, 1, **options)).train()
    assert '\n' not in str(error.value)
    assert not list(folder.glob('*.pth'))
    return str(error.value)


def test_a_batch_size_above_the_number_of_images(digits, tmp_path):
    text = refused(
        digits,
        tmp_path,
        **{'train_dataloader.batch_size': 41,
           'train_dataloader.drop_last': True},
    )  # fmt: skip
    assert SMALL in text and 'batch_size of at most 40' in text


def test_more_processes_than_images(monkeypatch):
    """A process needs at least one image; the sampler repeats some."""
    monkeypatch.setattr(training_steps_hook, 'get_world_size', lambda: 3)
    loader = DataLoader(
        range(2), batch_size=2, drop_last=True, sampler=[0],
        collate_fn=list,
    )  # fmt: skip
    with pytest.raises(FGCError, match='a batch_size of at most 1 in'):
        training_steps_hook._check_batches(loader)


def test_no_epoch(digits, tmp_path):
    cfg = digits.tiny_config(tmp_path, 0)
    cfg.param_scheduler = None
    with pytest.raises(FGCError, match=r'max_epochs .* is 0, which leaves'):
        digits.start(cfg).train()


def test_a_run_that_is_resumed_at_its_end(digits, tmp_path):
    """A job that Slurm starts once more is no failure."""
    first, second = tmp_path / 'first', tmp_path / 'second'
    digits.start(digits.tiny_config(first, 1)).train()
    path = str(first / 'epoch_1.pth')
    cfg = digits.tiny_config(second, 1, resume=True, load_from=path)
    digits.start(cfg).train()
    for folder, count in ((first, 0), (second, 1)):
        (log,) = folder.glob('*/*.log')
        said = 'resumed at its end (iteration 5)'
        assert log.read_text().count(said) == count
