_base_ = [
    './_base_/models/gated_resnet18_imagenet.py',
    './_base_/datasets/imagenet.py',
    './_base_/schedules/imagenet_130e.py',
    './_base_/default_runtime.py',
]

# Predictors learn for the first half; then the network adapts to them. Ours:
# 130 epochs, their steps and batches of 256, since the published recipe for
# ImageNet is not known to us.
model = dict(
    backbone=dict(
        gate=dict(_delete_=True, type='fgc_mm.FTWTGate'),
        sites=dict(
            _delete_=True,
            type='auto',
            residual=True,
            patterns=['conv1', 'layer*.*.conv[12]'],
        ),
    ),
    gate_losses=[
        dict(
            type='fgc_mm.MaskPredictionLoss',
            ratio=0.91,  # published; plan_budget.py finds another
            loss_weight=dict(start_value=1.0, end_value=0.0, begin=65, end=65),
        ),
    ],
)
custom_hooks = [
    dict(type='fgc_mm.LossProgressHook'),
    dict(type='fgc_mm.GateLRHook', lr=0.1),
]
optim_wrapper = dict(optimizer=dict(lr=0.01, nesterov=False))
# python tools/train.py configs/dense_resnet18_imagenet.py
load_from = 'work_dirs/dense_resnet18_imagenet/epoch_160.pth'
