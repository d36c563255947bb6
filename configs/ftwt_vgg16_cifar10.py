_base_ = ['./ftwt_resnet56_cifar10.py']

model = dict(
    backbone=dict(
        backbone=dict(
            _delete_=True, type='VGG', depth=16, norm_cfg=dict(type='BN')
        ),
    ),
    head=dict(in_channels=512),
)
# python tools/train.py configs/dense_vgg16_cifar10.py
load_from = 'work_dirs/dense_vgg16_cifar10/epoch_500.pth'
