_base_ = [
    './_base_/models/gated_cifar_resnet.py',
    './_base_/datasets/folder32.py',
    './_base_/schedules/cifar10_500e_cosine.py',
    './_base_/methods/fgcplus_500e_55.py',
    './_base_/default_runtime.py',
]

model = dict(
    backbone=dict(gate=_base_.gate),
    gate_losses=_base_.gate_losses,
)
