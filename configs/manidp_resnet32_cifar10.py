_base_ = ['./manidp_resnet20_cifar10.py']

model = dict(backbone=dict(backbone=dict(depth=32)))
