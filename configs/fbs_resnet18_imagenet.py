_base_ = [
    './_base_/models/gated_resnet18_imagenet.py',
    './_base_/datasets/imagenet.py',
    './_base_/schedules/imagenet_130e.py',
    './_base_/default_runtime.py',
]

# the density falls while the learning rate is high
model = dict(
    backbone=dict(
        gate=dict(
            _delete_=True,
            type='fgc_mm.FBSGate',
            density=dict(start_value=1.0, end_value=0.4375, begin=0, end=40),
        ),
    ),
    gate_losses=[dict(type='fgc_mm.SaliencyL1Loss', loss_weight=1e-8)],
)
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
