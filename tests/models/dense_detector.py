"""A model in the style of mmdet: dense heads on all maps of a backbone."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement, InstanceData
from torch import nn
from torch.utils.data import Dataset

SIZE = 64  # pixels of an image


@MODELS.register_module(force=True)
class DenseDetector(BaseModel):
    """A score map per output of the backbone, without any code for gates."""

    def __init__(
        self, backbone, channels, passes=1, own_loss='loss_dense',
        data_preprocessor=None,
    ):  # fmt: skip
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self.heads = nn.ModuleList(nn.Conv2d(c, 1, 1) for c in channels)
        self.passes = passes
        self.own_loss = own_loss

    def forward(self, inputs, data_samples=None, mode='tensor'):
        for _ in range(self.passes):
            features = self.backbone(inputs)
        maps = [head(x) for head, x in zip(self.heads, features)]
        if mode == 'loss':
            # a loss per level, as mmdet's heads return them
            return {self.own_loss: [loss_of(x, data_samples) for x in maps]}
        return predictions(maps, data_samples) if mode == 'predict' else maps


def loss_of(scores, samples):
    size = scores.shape[-2:]
    targets = [F.adaptive_max_pool2d(s.target, size) for s in samples]
    target = torch.stack(targets).to(scores.device)
    return F.binary_cross_entropy_with_logits(scores, target)


def predictions(maps, samples):
    for scores, sample in zip(maps[0].flatten(1), samples):
        best, where = scores.topk(3)
        sample.pred_instances = InstanceData(scores=best, cells=where)
    return samples


class Boxes(Dataset):
    """Images with one bright square each."""

    def __init__(self, count=8):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(count, 3, SIZE, SIZE, generator=generator)
        self.targets = torch.zeros(count, 1, SIZE, SIZE)
        corners = torch.randint(0, SIZE - 16, (count, 2), generator=generator)
        for number, (top, left) in enumerate(corners.tolist()):
            box = ..., slice(top, top + 16), slice(left, left + 16)
            self.images[number][box] += 2
            self.targets[number][box] = 1

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        sample = BaseDataElement(metainfo=dict(sample_idx=index))
        sample.target = self.targets[index]
        return dict(inputs=self.images[index], data_samples=sample)


def detector_config(gate_losses=(), **options):
    """Config of a gated detector on the four maps of a ResNet-18."""
    return dict(
        type='fgc_mm.GatedModel',
        base='DenseDetector',
        channels=(8, 16, 32, 64),
        gate_losses=gate_losses,
        data_preprocessor=dict(type='mmengine.ImgDataPreprocessor'),
        backbone=dict(
            type='fgc_mm.GatedBackbone',
            backbone=dict(
                type='mmpretrain.ResNet', depth=18, base_channels=8,
                stem_channels=8, out_indices=(0, 1, 2, 3),
            ),
            gate=dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4),
        ),
    ) | options  # fmt: skip
