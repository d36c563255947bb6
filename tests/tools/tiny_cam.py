"""A stand-in for the package pytorch_grad_cam, which vis_cam.py imports."""

import sys
from types import ModuleType

import numpy as np
import torch


class ActivationsAndGradients:
    """Keeps the output of a layer, and its gradient."""

    def __init__(self, model, target_layers, reshape_transform):
        self.model, self.reshape = model, reshape_transform
        (layer,) = target_layers
        self.handle = layer.register_forward_hook(self._keep)

    def _keep(self, layer, inputs, output):
        self.maps = output
        output.retain_grad()

    def release(self):
        self.handle.remove()


class BaseCAM:
    """Gradient-weighted class activation maps of one layer."""

    # the forks do not give use_cuda, which its later versions lack
    def __init__(self, model, target_layers, use_cuda=False):
        self.model, self.target_layers = model, target_layers
        self.activations_and_grads = ActivationsAndGradients(
            model, target_layers, None
        )

    def __call__(self, images, targets, eigen_smooth, aug_smooth):
        kept = self.activations_and_grads
        with torch.enable_grad():
            self.model(images).max(dim=1).values.sum().backward()
        maps, grads = kept.reshape(kept.maps), kept.reshape(kept.maps.grad)
        weights = grads.mean(dim=(2, 3), keepdim=True)
        cam = (weights * maps).sum(dim=1).relu().detach()
        return torch.nn.functional.interpolate(cam[:, None], images.shape[2:])[
            :, 0
        ].numpy()


class GradCAM(BaseCAM):
    """The default method of vis_cam.py."""


def show_cam_on_image(image, cam, use_rgb):
    """The picture."""
    assert not use_rgb
    return np.uint8(255 * (image + cam[..., None]).clip(0, 1))


def install(monkeypatch):
    """Makes the stand-in importable."""
    parts = {
        'pytorch_grad_cam': dict(GradCAMPlusPlus=GradCAM),
        'pytorch_grad_cam.base_cam': dict(BaseCAM=BaseCAM),
        'pytorch_grad_cam.activations_and_gradients': dict(
            ActivationsAndGradients=ActivationsAndGradients
        ),
        'pytorch_grad_cam.utils': {},
        'pytorch_grad_cam.utils.image': dict(
            show_cam_on_image=show_cam_on_image
        ),
    }
    modules = {name: ModuleType(name) for name in parts}
    for name, content in parts.items():
        vars(modules[name]).update(content)
        monkeypatch.setitem(sys.modules, name, modules[name])
    base = modules['pytorch_grad_cam.base_cam']
    modules['pytorch_grad_cam'].base_cam = base
