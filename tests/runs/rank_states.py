"""What methods keep over an epoch; alone, or as one of two processes."""

import torch

from fgc_mm.functional.schedule import Progress
from fgc_mm.gates import ManiDPGate
from fgc_mm.losses.easiness import Easiness


def thresholds(own):
    """ManiDP's threshold and easy bound, from batches of some images.

    ``own`` picks of 8 images those of this process.
    """
    torch.manual_seed(0)
    gate, easiness = ManiDPGate(4, 10, keep=0.4).train(), Easiness()
    images, scores = torch.rand(8, 4, 3, 3), torch.randn(8, 5)
    labels = torch.arange(8) % 5
    for epoch in (0, 1):
        gate.progress = Progress(epoch, 0)
        for part in (own[: len(own) // 2], own[len(own) // 2 :]):
            gate(images[part])
            easiness(scores[part], labels[part], epoch)
    return {
        'threshold': gate.threshold,
        'sum': gate.saliency_sum,
        'bound': easiness.bound,
    }
