_base_ = ['./dense_resnet20_cifar100.py']

model = dict(backbone=dict(depth=56))
