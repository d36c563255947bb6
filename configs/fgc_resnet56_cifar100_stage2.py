_base_ = ['./fgc_resnet20_cifar100_stage2.py']

*others, coupling = _base_.model.gate_losses
coupling.sites = 4
model = dict(
    backbone=dict(backbone=dict(depth=56)),
    gate_losses=[*others, coupling],
)
# python tools/train.py configs/bas_resnet56_cifar100_stage1.py
load_from = 'work_dirs/bas_resnet56_cifar100_stage1/epoch_100.pth'
