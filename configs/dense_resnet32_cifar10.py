_base_ = ['./dense_resnet20_cifar10.py']

model = dict(backbone=dict(depth=32))
