_base_ = [
    './_base_/models/gated_resnet18_imagenet.py',
    './_base_/datasets/imagenet.py',
    './_base_/schedules/imagenet_130e.py',
    './_base_/methods/fbs.py',
    './_base_/default_runtime.py',
]

# the density falls while the learning rate is high
model = dict(
    backbone=dict(
        gate=dict(
            _delete_=True,
            type=_base_.gate.type,
            density=dict(_base_.gate.density, end=40),
        ),
    ),
    gate_losses=_base_.gate_losses,
)
