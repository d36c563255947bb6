_base_ = ['./bas_resnet20_cifar100_stage1.py']

model = dict(backbone=dict(backbone=dict(depth=32)))
