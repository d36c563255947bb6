_base_ = ['./bas_resnet20_folder.py']

# 55 % of the MACs pruned, in place of an L0 weight to be searched for
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
