_base_ = [
    './_base_/models/gated_cifar_resnet.py',
    './_base_/datasets/folder32.py',
    './_base_/schedules/cifar10_500e.py',
    './_base_/methods/bas_500e_55.py',
    './_base_/default_runtime.py',
]

model = dict(gate_losses=_base_.gate_losses)
# kept for runs that share these first epochs
default_hooks = dict(checkpoint=dict(keep_epochs=[100]))
