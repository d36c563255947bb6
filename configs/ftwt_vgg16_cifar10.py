_base_ = ['./ftwt_resnet56_cifar10.py']

model = dict(
    backbone=dict(
        backbone=dict(
            _delete_=True, type='VGG', depth=16, norm_cfg=dict(type='BN')
        ),
        # all 13 convs, the last one included
        sites=dict(_delete_=True, type='auto', every_conv=True),
    ),
    head=dict(in_channels=512),
    # published: 0.92, and 0.85 for more pruning
    gate_losses=[{**_base_.gate_losses[0], 'ratio': 0.92}],
)
# python tools/train.py configs/dense_vgg16_cifar10.py
load_from = 'work_dirs/dense_vgg16_cifar10/epoch_500.pth'
