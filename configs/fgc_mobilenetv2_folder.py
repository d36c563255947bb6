_base_ = ['./fgc_resnet18_folder.py']

model = dict(
    backbone=dict(backbone=dict(_delete_=True, type='MobileNetV2')),
    head=dict(in_channels=1280),
)
