_base_ = [
    './_base_/models/cifar_resnet.py',
    './_base_/datasets/cifar100.py',
    './_base_/schedules/cifar100_300e.py',
    './_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=100))
