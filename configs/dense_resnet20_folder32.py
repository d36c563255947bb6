_base_ = [
    './_base_/models/cifar_resnet.py',
    './_base_/datasets/folder32.py',
    './_base_/schedules/cifar10_500e.py',
    './_base_/default_runtime.py',
]
