_base_ = ['./manidp_resnet20_cifar10.py']

model = dict(backbone=dict(backbone=dict(depth=32)))
# python tools/train.py configs/dense_resnet32_cifar10.py
load_from = 'work_dirs/dense_resnet32_cifar10/epoch_500.pth'
