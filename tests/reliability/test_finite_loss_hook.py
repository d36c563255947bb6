"""A loss that is not a number ends the run, in one sentence."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from fgc_mm.errors import FGCError


@HOOKS.register_module(force=True)
class SpoilHook(Hook):
    """Puts nan into the images of one step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 7:
            images = data_batch['inputs']
            data_batch['inputs'] = [x.float() * torch.nan for x in images]


@pytest.mark.parametrize('method', ['fgc', 'dense'])
def test_nan_in_one_batch(digits, tmp_path, method):
    cfg = digits.tiny_config(tmp_path, epochs=2)
    if method == 'dense':
        cfg.model.type = 'mmpretrain.ImageClassifier'
        cfg.model.backbone = cfg.model.backbone.backbone
        del cfg.model['gate_losses']
        cfg.custom_hooks = []
        del cfg.optim_wrapper['paramwise_cfg']
    cfg.custom_hooks.append(dict(type='SpoilHook'))
    with pytest.raises(FGCError) as caught:
        digits.start(cfg).train()
    text, name = str(caught.value), 'loss_cls' if method == 'fgc' else 'loss'
    assert text.startswith(f'{name} is nan') and '\n' not in text
    assert 'at epoch 2, iteration 8:' in text
    # the one of the epoch before is whole
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    for key, value in state['state_dict'].items():
        assert value.isfinite().all(), key


def test_a_spoilt_gate_loss_is_named(digits, tmp_path, monkeypatch):
    runner = digits.start(digits.tiny_config(tmp_path))
    shaping = type(runner.model.gate_losses[0])
    whole = shaping.compute
    monkeypatch.setattr(
        shaping, 'compute', lambda *args: whole(*args) * torch.inf
    )
    with pytest.raises(FGCError, match=r'^loss_shaping is inf at epoch 1, '):
        runner.train()
