_base_ = ['./dense_resnet20_cifar10.py']

model = dict(
    backbone=dict(_delete_=True, type='fgc_mm.MobileNetV1', small_images=True),
    head=dict(in_channels=1024),
)
