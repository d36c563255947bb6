_base_ = ['./dense_resnet20_cifar10.py']

model = dict(
    backbone=dict(
        _delete_=True, type='VGG', depth=16, norm_cfg=dict(type='BN')
    ),
    head=dict(in_channels=512),
)
optim_wrapper = dict(optimizer=dict(lr=0.05))
