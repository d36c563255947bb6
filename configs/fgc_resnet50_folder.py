_base_ = ['./fgc_resnet18_folder.py']

model = dict(
    backbone=dict(backbone=dict(depth=50)),
    head=dict(in_channels=2048),
)
