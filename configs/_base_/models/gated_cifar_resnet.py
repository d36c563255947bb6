model = dict(
    type='fgc_mm.GatedImageClassifier',
    backbone=dict(
        type='fgc_mm.GatedBackbone',
        backbone=dict(type='fgc_mm.CifarResNet', depth=20),
        gate=dict(type='fgc_mm.BinaryConcreteGate'),
        sites='auto',
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss'),
    ),
)
val_evaluator = [
    dict(type='Accuracy', topk=(1,)),
    dict(type='fgc_mm.DynamicMACs'),
]
test_evaluator = val_evaluator
