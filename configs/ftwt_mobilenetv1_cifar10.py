_base_ = ['./ftwt_resnet56_cifar10.py']

model = dict(
    backbone=dict(
        backbone=dict(
            _delete_=True, type='fgc_mm.MobileNetV1', small_images=True
        ),
    ),
    head=dict(in_channels=1024),
)
# python tools/train.py configs/dense_mobilenetv1_cifar10.py
load_from = 'work_dirs/dense_mobilenetv1_cifar10/epoch_500.pth'
