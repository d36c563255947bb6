_base_ = ['./bas_resnet20_cifar100.py']

model = dict(backbone=dict(backbone=dict(depth=56)))
