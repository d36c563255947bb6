_base_ = ['./fgc_resnet20_cifar100.py']

*others, coupling = _base_.model.gate_losses
coupling.sites = 4
model = dict(
    backbone=dict(backbone=dict(depth=56)),
    gate_losses=[*others, coupling],
)
