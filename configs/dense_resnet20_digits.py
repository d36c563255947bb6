_base_ = [
    './_base_/models/cifar_resnet.py',
    './_base_/datasets/digits.py',
    './_base_/schedules/digits_100e.py',
    './_base_/default_runtime.py',
]
