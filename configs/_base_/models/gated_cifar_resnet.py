model = dict(
    type='fgc_mm.GatedImageClassifier',
    backbone=dict(
        type='fgc_mm.GatedBackbone',
        backbone=dict(type='fgc_mm.CifarResNet', depth=20),
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
        num_classes=10,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='fgc_mm.KaimingWeights', layer='Linear'),
    ),
)
val_evaluator = [
    dict(type='Accuracy', topk=(1,)),
    dict(type='fgc_mm.DynamicMACs'),
]
test_evaluator = val_evaluator
