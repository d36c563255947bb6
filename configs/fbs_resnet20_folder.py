_base_ = [
    './_base_/models/gated_cifar_resnet.py',
    './_base_/datasets/folder.py',
    './_base_/schedules/cifar10_500e.py',
    './_base_/methods/fbs.py',
    './_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        gate=dict(_delete_=True, **_base_.gate),
    ),
    gate_losses=_base_.gate_losses,
)
