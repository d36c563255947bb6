_base_ = ['./ftwt_resnet56_cifar10.py']

model = dict(
    backbone=dict(
        backbone=dict(
            _delete_=True, type='fgc_mm.MobileNetV1', small_images=True
        ),
        # all 27 convs, depthwise ones and the last one included
        sites=dict(_delete_=True, type='auto', every_conv=True),
    ),
    head=dict(in_channels=1024),
    # published: only channels without any mass are dropped
    gate_losses=[{**_base_.gate_losses[0], 'ratio': 1.0}],
)
# python tools/train.py configs/dense_mobilenetv1_cifar10.py
load_from = 'work_dirs/dense_mobilenetv1_cifar10/epoch_500.pth'
