# The 500-epoch schedule, scaled to 130 epochs.
gate_losses = [
    dict(
        type='fgc_mm.BatchShapingLoss',
        loss_weight=dict(start_value=0.75, end_value=0.0, begin=0, end=26),
    ),
    dict(
        type='fgc_mm.L0Loss',
        loss_weight=dict(start_value=0.0, end_value=0.4, begin=26, end=78),
    ),
]
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
