_base_ = ['./fgc_resnet18_imagenet.py']

model = dict(
    backbone=dict(
        backbone=dict(_delete_=True, type='RegNet', arch='regnetx_400mf')
    ),
    head=dict(in_channels=384),
)
