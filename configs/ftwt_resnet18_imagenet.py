_base_ = [
    './_base_/models/gated_resnet18_imagenet.py',
    './_base_/datasets/imagenet.py',
    './_base_/schedules/imagenet_130e.py',
    './_base_/methods/ftwt.py',
    './_base_/default_runtime.py',
]

# Ours: 130 epochs, their steps and batches of 256, since the published recipe
# for ImageNet is not known to us.
model = dict(
    backbone=dict(
        gate=dict(_delete_=True, **_base_.gate),
        sites=dict(_delete_=True, **_base_.sites),
    ),
    gate_losses=[
        dict(
            _base_.gate_losses[0],
            ratio=0.91,  # published; plan_budget.py finds that of a budget
            loss_weight=dict(start_value=1.0, end_value=0.0, begin=65, end=65),
        ),
    ],
)
optim_wrapper = dict(optimizer=dict(lr=0.01, nesterov=False))
# python tools/train.py configs/dense_resnet18_imagenet.py
load_from = 'work_dirs/dense_resnet18_imagenet/epoch_160.pth'
