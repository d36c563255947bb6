_base_ = ['./manidp_resnet20_cifar10.py']

model = dict(backbone=dict(backbone=dict(depth=56)))
# python tools/train.py configs/dense_resnet56_cifar10.py
load_from = 'work_dirs/dense_resnet56_cifar10/epoch_500.pth'
