_base_ = [
    './_base_/models/resnet18_imagenet.py',
    './_base_/datasets/imagenet.py',
    './_base_/schedules/imagenet_160e.py',
    './_base_/default_runtime.py',
]
