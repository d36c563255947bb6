_base_ = ['./cifar_resnet.py']

model = dict(
    type='fgc_mm.GatedImageClassifier',
    backbone=dict(
        _delete_=True,
        type='fgc_mm.GatedBackbone',
        backbone=_base_.model.backbone,
        # initialised as in the published code of FGC
        gate=dict(
            type='fgc_mm.BinaryConcreteGate',
            weight_init='kaiming_normal',
            init_bias=None,
        ),
        sites='auto',
    ),
)
val_evaluator = _base_.val_evaluator + [dict(type='fgc_mm.DynamicMACs')]
test_evaluator = val_evaluator
