_base_ = ['./dense_cosine_resnet20_folder16.py']

# the dense network with the teacher of fgcplus_distilled_resnet20_folder16_55
model = dict(
    type='fgc_mm.GatedImageClassifier',
    backbone=dict(
        _delete_=True,
        type='fgc_mm.GatedBackbone',
        backbone=_base_.model.backbone,
        gate=dict(type='fgc_mm.OpenGate'),
    ),
    distillation=dict(temperature=4.0, loss_weight=1.0),
)
