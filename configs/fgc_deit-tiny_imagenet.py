_base_ = ['./fgc_resnet18_imagenet.py']

# the sites are the hidden layers of the MLPs
model = dict(
    backbone=dict(
        backbone=dict(
            _delete_=True,
            type='VisionTransformer',
            arch='deit-tiny',
            img_size=224,
            patch_size=16,
        )
    ),
    neck=None,
    head=dict(
        _delete_=True,
        type='VisionTransformerClsHead',
        num_classes=1000,
        in_channels=192,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=5),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=5, eta_min=1e-5),
]
