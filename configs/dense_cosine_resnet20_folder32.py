# dense_resnet20_folder32.py with the learning rate of fgcplus_*
_base_ = [
    './_base_/models/cifar_resnet.py',
    './_base_/datasets/folder32.py',
    './_base_/schedules/cifar10_500e_cosine.py',
    './_base_/default_runtime.py',
]
