# As bas_500e.py, but the loss that grows from epoch 100 to 300 asks for 55 %
# of the MACs pruned, in place of an L0 weight to be searched for.
gate_losses = [
    dict(
        type='fgc_mm.BatchShapingLoss',
        loss_weight=dict(start_value=0.75, end_value=0.0, begin=0, end=100),
    ),
    dict(
        type='fgc_mm.MACsTargetLoss',
        pruning_ratio=0.55,
        loss_weight=dict(start_value=0.0, end_value=100.0, begin=100, end=300),
    ),
]
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
