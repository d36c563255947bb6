_base_ = [
    './_base_/models/gated_cifar_resnet.py',
    './_base_/datasets/cifar10.py',
    './_base_/schedules/ftwt_200e.py',
    './_base_/methods/ftwt.py',
    './_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        backbone=dict(depth=56),
        gate=dict(_delete_=True, **_base_.gate),
        sites=dict(_delete_=True, **_base_.sites),
    ),
    gate_losses=_base_.gate_losses,
)
train_dataloader = dict(batch_size=128)
# python tools/train.py configs/dense_resnet56_cifar10.py
load_from = 'work_dirs/dense_resnet56_cifar10/epoch_500.pth'
