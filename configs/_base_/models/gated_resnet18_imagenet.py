model = dict(
    type='fgc_mm.GatedImageClassifier',
    backbone=dict(
        type='fgc_mm.GatedBackbone',
        backbone=dict(type='ResNet', depth=18),
        # initialised as in the published code of FGC
        gate=dict(
            type='fgc_mm.BinaryConcreteGate',
            weight_init='kaiming_normal',
            init_bias=None,
        ),
        sites='auto',
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=512,
        loss=dict(type='CrossEntropyLoss'),
    ),
)
val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='fgc_mm.DynamicMACs'),
]
test_evaluator = val_evaluator
