# the network of dense_wide_resnet20_folder16.py, as a teacher
wide_teacher = dict(
    type='ImageClassifier',
    backbone=dict(type='fgc_mm.CifarResNet', depth=20, base_channels=32),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
)
