_base_ = ['./bas_resnet20_cifar100_stage2.py']

model = dict(backbone=dict(backbone=dict(depth=32)))
# python tools/train.py configs/bas_resnet32_cifar100_stage1.py
load_from = 'work_dirs/bas_resnet32_cifar100_stage1/epoch_100.pth'
