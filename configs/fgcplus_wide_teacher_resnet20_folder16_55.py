_base_ = ['./fgcplus_distilled_resnet20_folder16_55.py']

# the teacher is the dense network with twice the channels
# (dense_wide_resnet20_folder16.py): teacher of a row of tools/compare.py, or
# --cfg-options model.distillation.checkpoint=...
model = dict(
    distillation=dict(
        teacher=dict(
            type='ImageClassifier',
            backbone=dict(
                type='fgc_mm.CifarResNet', depth=20, base_channels=32
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
        )
    )
)
