_base_ = [
    './_base_/models/gated_resnet18_imagenet.py',
    './_base_/datasets/imagenet.py',
    './_base_/schedules/imagenet_130e.py',
    './_base_/methods/manidp.py',
    './_base_/default_runtime.py',
]

# Ours: 130 epochs, batches of 256 and keep=0.6, since the published recipe for
# ImageNet is not known to us.
model = dict(
    backbone=dict(
        gate=dict(
            _delete_=True,
            type=_base_.gate.type,
            keep=dict(_base_.gate.keep, end=129),
        ),
        sites=dict(_delete_=True, **_base_.sites),
    ),
    gate_losses=_base_.gate_losses,
)
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    by_epoch=True,
    T_max=130,
    convert_to_iter_based=True,
)
# python tools/train.py configs/dense_resnet18_imagenet.py
load_from = 'work_dirs/dense_resnet18_imagenet/epoch_160.pth'
