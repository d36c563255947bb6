_base_ = ['./dense_distilled_resnet20_folder16.py']

# the dense network with the teacher of
# fgcplus_wide_teacher_resnet20_folder16_55.py
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
