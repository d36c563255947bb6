"""A config's model and optimizer, and images for them."""

import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fgc_mm.engine.image_size import pipeline_of
from fgc_mm.engine.loss_progress_hook import set_progress
from fgc_mm.functional.schedule import Progress
from fgc_mm.registry import MODELS


def read_config(name: str) -> Config:
    """A config of this repository."""
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    init_default_scope(cfg.default_scope)
    return cfg


def build_training(
    cfg: Config, epoch: int, device: str = 'cpu'
) -> tuple[nn.Module, OptimWrapper]:
    """The model in an epoch of its training, without a teacher."""
    parts = dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
    parts.pop('distillation', None)
    model = MODELS.build(parts).train().to(device)
    set_progress(model, Progress(epoch, 0))
    return model, build_optim_wrapper(model, cfg.optim_wrapper)


def random_batch(cfg: Config, images: int) -> dict[str, Any]:
    """A batch as the data loader gives it, of the config's size."""
    steps = pipeline_of(cfg.train_dataloader.dataset)
    sizes = [step.scale for step in steps if step.type == 'Resize']
    shape = images, 3, *(sizes[0] if sizes else (32, 32))
    samples = [
        DataSample(metainfo=dict(sample_idx=i)).set_gt_label(i % 10)
        for i in range(images)
    ]
    inputs = torch.randint(0, 256, shape, dtype=torch.uint8)
    return dict(inputs=inputs, data_samples=samples)
