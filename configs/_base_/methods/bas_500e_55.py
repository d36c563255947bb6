# As bas_500e.py, but with a target of 55 % pruned MACs instead of the L0 loss,
# whose weight would have to be searched for.
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
