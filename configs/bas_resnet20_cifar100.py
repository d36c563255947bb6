_base_ = [
    './_base_/models/gated_cifar_resnet.py',
    './_base_/datasets/cifar100.py',
    './_base_/schedules/cifar100_300e.py',
    './_base_/methods/bas_300e.py',
    './_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=100), gate_losses=_base_.gate_losses)
# kept for runs that share these first epochs: *_stage2.py
default_hooks = dict(checkpoint=dict(keep_epochs=[100]))
