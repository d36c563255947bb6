_base_ = [
    './_base_/models/gated_resnet18_imagenet.py',
    './_base_/datasets/imagenet.py',
    './_base_/schedules/imagenet_130e.py',
    './_base_/default_runtime.py',
]

# both convs of a block; the thresholds rise while the learning rate is high
model = dict(
    backbone=dict(
        gate=dict(
            _delete_=True,
            type='fgc_mm.ManiDPGate',
            keep=dict(
                start_value=1.0,
                end_value=0.61,
                begin=0,
                end=70,
                curve='cosine',
            ),
        ),
        sites=dict(_delete_=True, type='auto', residual=True),
    ),
    gate_losses=[
        dict(
            type='fgc_mm.SaliencyL1Loss',
            reduction='mean',
            easiness=True,
            loss_weight=5e-3,
        ),
        dict(type='fgc_mm.GramSimilarityLoss', loss_weight=0.1),
    ],
)
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
