_base_ = ['./fgc_resnet20_cifar100.py']

model = dict(backbone=dict(backbone=dict(depth=32)))
