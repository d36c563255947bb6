"""Mixed precision on a CPU: bfloat16 forward, float32 losses, same resumes."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from fgc_mm.engine import bfloat16_wrapper
from fgc_mm.engine.bfloat16_wrapper import (
    multiplies_bfloat16,
    use_mixed_precision,
)
from fgc_mm.errors import FGCError

OURS = 'fgc_mm.BFloat16OptimWrapper'
SHORT = {
    'optim_wrapper.type': OURS,
    'train_dataloader.dataset.indices': 16,
}


class SeenHook(Hook):
    """Records the dtype of a conv's output."""

    def __init__(self):
        self.dtypes = set()

    def before_train(self, runner):
        conv = runner.model.backbone.backbone.conv1
        conv.register_forward_hook(
            lambda _, __, output: self.dtypes.add(output.dtype)
        )


def trained(digits, folder, **options):
    runner = digits.start(
        digits.tiny_config(folder, 2, **{**SHORT, **options})
    )
    seen = SeenHook()
    runner.register_hook(seen)
    runner.train()
    assert seen.dtypes == {torch.bfloat16}
    return runner


def test_a_resumed_run_is_exact(digits, tmp_path):
    whole = trained(digits, tmp_path)
    wanted = digits.weights(whole), digits.bank_rows(digits.coupling(whole))
    assert all(x.dtype == torch.float32 for x in whole.model.parameters())
    path = str(tmp_path / 'epoch_1.pth')
    again = trained(digits, tmp_path / 'again', resume=True, load_from=path)
    assert digits.equal(digits.weights(again), wanted[0])
    assert digits.equal(digits.bank_rows(digits.coupling(again)), wanted[1])
    one, other = (
        r.optim_wrapper.optimizer.state_dict()['state'] for r in (whole, again)
    )
    for key, state in one.items():
        momentum = state['momentum_buffer']
        assert momentum.dtype == torch.float32
        assert torch.equal(momentum, other[key]['momentum_buffer'])


def config(**wrapper):
    return Config(dict(optim_wrapper=dict(optimizer=dict(), **wrapper)))


@pytest.fixture
def device(monkeypatch):
    return lambda name: monkeypatch.setattr(
        bfloat16_wrapper, 'get_device', lambda: name
    )


def test_which_wrapper(device):
    device('cpu')
    for wrapper, wanted in (
        (dict(), True),
        (dict(type='OptimWrapper'), True),
        (dict(type='AmpOptimWrapper', loss_scale=512.0), False),
        (dict(type='mmengine.AmpOptimWrapper', dtype='bfloat16'), False),
    ):
        cfg = config(**wrapper)
        use_mixed_precision(cfg, wanted)
        assert cfg.optim_wrapper == dict(optimizer=dict(), type=OURS)
    cfg = config(type='OptimWrapper')
    use_mixed_precision(cfg, False)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    device('cuda')
    cfg = config()
    use_mixed_precision(cfg, True)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'


@pytest.mark.parametrize(
    ('name', 'dtype'), [('cpu', 'float16'), ('mps', 'bfloat16')]
)
def test_what_cannot_be_had_is_refused(device, name, dtype):
    device(name)
    with pytest.raises(FGCError, match=f'in {dtype} is not .* {name}:'):
        use_mixed_precision(config(dtype=dtype), True)


def test_a_cpu_that_cannot_multiply_it(tmp_path):
    info = tmp_path / 'cpuinfo'
    for text, known in (
        ('flags\t\t: fpu avx2 avx512f\n', False),
        ('processor : 0\nflags\t\t: fpu avx512_bf16\n', True),
        ('Features\t: fp asimd bf16 i8mm\n', True),
        ('Features\t: fp asimd\n', False),
        ('nothing\n', True),
    ):
        info.write_text(text)
        assert multiplies_bfloat16(info) is known
    assert multiplies_bfloat16(tmp_path / 'none')
