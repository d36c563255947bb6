"""Memory is pinned only where images are copied to a GPU."""

from argparse import Namespace

import pytest
import torch
from mmengine.config import Config

from fgc_mm.cli.commands.test import apply_arguments as apply_to_test
from fgc_mm.cli.commands.train import apply_loader_arguments
from fgc_mm.engine.dataloader_defaults import unpin_device_images

INNER = dict(type='InMemoryImages', device='auto')
ON_DEVICE = {
    'itself': INNER,
    'repeated': dict(type='RepeatDataset', times=2, dataset=INNER),
    'concatenated': dict(type='ConcatDataset', datasets=[dict(), INNER]),
}
IN_MEMORY = [
    dict(type='ImageFolder'),
    dict(type='InMemoryImages', dataset=dict(type='ImageFolder')),
    dict(type='InMemoryImages', device='cpu'),
    torch.utils.data.TensorDataset(),
]


@pytest.mark.parametrize('kind', ON_DEVICE)
def test_images_on_a_device_are_not_pinned(kind):
    cfg = Config(dict(loader=dict(dataset=ON_DEVICE[kind], pin_memory=True)))
    unpin_device_images(cfg, ['loader', 'absent'])
    assert cfg.loader.pin_memory is False and 'absent' not in cfg


@pytest.mark.parametrize('dataset', IN_MEMORY)
def test_images_in_main_memory_are(dataset):
    cfg = Config(dict(loader=dict(pin_memory=True)))
    cfg.loader.dataset = dataset
    unpin_device_images(cfg, ['loader'])
    assert cfg.loader.pin_memory is True


@pytest.mark.parametrize('apply', [apply_loader_arguments, apply_to_test])
@pytest.mark.parametrize(
    'options', [[], ['test_dataloader.dataset.device=auto']]
)
def test_options_may_set_the_device(apply, options, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = Config(
        dict(
            model=dict(),
            test_cfg=dict(),
            test_evaluator=dict(),
            test_dataloader=dict(dataset=dict(type='InMemoryImages')),
        )
    )
    apply(
        cfg,
        Namespace(
            config='x.py', checkpoint='x.pth', work_dir='x', launcher='none',
            amp=False, tta=False, show=False, show_dir=None, dynamic=None,
            gate_threshold=None, threshold_sweep=None, no_pin_memory=False,
            no_persistent_workers=False, cfg_options=options,
        ),
    )  # fmt: skip
    assert cfg.test_dataloader.pin_memory is (not options)
