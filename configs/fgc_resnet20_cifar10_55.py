_base_ = ['./fgc_resnet20_cifar10.py']

# a target of 55 % pruned MACs instead of the L0 loss
shaping, l0, *coupling = _base_.model.gate_losses
model = dict(
    gate_losses=[
        shaping,
        dict(
            type='fgc_mm.MACsTargetLoss',
            pruning_ratio=0.55,
            loss_weight=dict(l0.loss_weight, end_value=50.0),
        ),
        *coupling,
    ],
)
