model = dict(
    type='ImageClassifier',
    backbone=dict(type='fgc_mm.CifarResNet', depth=20),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='fgc_mm.KaimingWeights', layer='Linear'),
    ),
)
val_evaluator = [dict(type='Accuracy', topk=(1,))]
test_evaluator = val_evaluator
