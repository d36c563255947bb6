_base_ = ['./sfp_resnet20_cifar10.py']

model = dict(backbone=dict(depth=32))
