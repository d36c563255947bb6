"""Values read late from an accelerator: the same run, the same errors."""

import math

import pytest
import torch

from fgc_mm.async_read import AsyncRead
from fgc_mm.engine import logged_values_hook
from fgc_mm.errors import FGCError
from fgc_mm.functional import on_device
from fgc_mm.losses import coupling
from fgc_mm.memory import BatchWrite, MemoryBank
from fgc_mm.reliability import finite_loss_hook


@pytest.fixture
def late(monkeypatch):
    """Treats tensors of the CPU as those of an accelerator."""
    for module in (finite_loss_hook, logged_values_hook, coupling):
        monkeypatch.setattr(module, 'read_would_block', lambda _: True)


class Reads:
    """Counts the steps at which values were passed on to the log."""

    def __init__(self, monkeypatch):
        self.flushed = []
        flush = logged_values_hook.LoggedValuesHook.flush

        def counted(hook, runner):
            self.flushed.append((runner.iter, len(hook._stored)))
            flush(hook, runner)

        monkeypatch.setattr(
            logged_values_hook.LoggedValuesHook, 'flush', counted
        )


def history(runner):
    scalars = runner.message_hub.log_scalars
    return {
        key: list(zip(*buffer.data))
        for key, buffer in scalars.items()
        if key.startswith('train/') and 'time' not in key
    }


def test_a_run_with_late_reads_is_the_same_run(digits, tmp_path, request):
    options = {'default_hooks.logger.interval': 2}
    early = digits.start(digits.tiny_config(tmp_path / 'a', 1, **options))
    early.train()
    monkeypatch = request.getfixturevalue('monkeypatch')
    request.getfixturevalue('late')
    reads = Reads(monkeypatch)
    late = digits.start(digits.tiny_config(tmp_path / 'b', 1, **options))
    late.train()
    assert digits.equal(digits.weights(early), digits.weights(late))
    banks = [digits.bank_rows(digits.coupling(r)) for r in (early, late)]
    assert digits.equal(*banks)
    assert history(early) == history(late)
    # steps are counted from 0: logged after the second, fourth and last
    first = [step for step, count in reads.flushed if count]
    assert first == [1, 3, 4]
    saved = [torch.load(tmp_path / x / 'epoch_1.pth') for x in 'ab']
    logs = [x['message_hub']['log_scalars'] for x in saved]
    for one, other in zip(*(x['train/loss'].data for x in logs)):
        assert (one == other).all()


@pytest.mark.usefixtures('late')
@pytest.mark.parametrize('step', [1, 4])
def test_a_broken_loss_is_named_before_a_checkpoint(
    digits, tmp_path, monkeypatch, step
):
    runner = digits.start(digits.tiny_config(tmp_path, 1))
    compute = coupling.FeatureGateCouplingLoss.compute

    def broken(loss, batch):
        value = compute(loss, batch)
        training = batch.progress.iteration == step and loss.training
        return value * math.nan if training else value

    monkeypatch.setattr(coupling.FeatureGateCouplingLoss, 'compute', broken)
    for hook in list(runner.hooks):
        if type(hook).__name__ == 'ConfigCheckHook':
            runner.hooks.remove(hook)
    words = f'loss_coupling is nan at epoch 1, iteration {step + 1}:'
    with pytest.raises(FGCError, match=words):
        runner.train()
    assert runner.iter <= step + 1
    assert not list(tmp_path.glob('*.pth'))


def write(bank, values):
    return BatchWrite([bank], torch.tensor([1, 3, 1]), values)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, 1e6])
def test_a_batch_that_is_refused_late_was_not_written(value):
    bank = MemoryBank(5, 2, dtype=torch.float16)
    before = bank.rows.clone()
    values = torch.ones(3, 2)
    values[1, 0] = value
    batch = write(bank, values)
    batch.write()
    assert torch.equal(bank.rows, before)
    with pytest.raises(FGCError, match='sample_idx 3 is not finite'):
        batch.check()


def test_several_banks_are_written_as_one_by_one():
    torch.manual_seed(0)
    dims = (4, 2, 4)
    banks = [MemoryBank(9, dim) for dim in dims]
    twins = [MemoryBank(9, dim) for dim in dims]
    for bank, twin in zip(banks, twins):
        twin.rows.copy_(bank.rows)
    indices, values = torch.tensor([5, 2, 5, 8]), torch.randn(4, 10)
    batch = BatchWrite(banks, indices, values)
    batch.check(), batch.write()
    for bank, twin, part in zip(banks, twins, values.split(dims, 1)):
        twin.update(indices, part)
        assert torch.equal(bank.rows, twin.rows)


def test_a_late_read_is_the_value_of_its_time():
    number = torch.tensor(3.0)
    read = AsyncRead(number)
    assert read.get() == 3
    assert on_device([3, 1], torch.device('cpu')).tolist() == [3, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_late_reads_of_a_gpu():
    number = torch.zeros((), device='cuda')
    reads = []
    for step in range(5):
        number += 1
        reads.append((step + 1, AsyncRead(number)))
    assert all(read.get() == value for value, read in reads)
    rows = on_device([3, 1], torch.device('cuda'))
    assert rows.is_cuda and rows.tolist() == [3, 1]
