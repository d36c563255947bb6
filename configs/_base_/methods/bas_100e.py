# The 500-epoch schedule, scaled to 100 epochs.
gate_losses = [
    dict(
        type='fgc_mm.BatchShapingLoss',
        loss_weight=dict(start_value=0.75, end_value=0.0, begin=0, end=20),
    ),
    dict(
        type='fgc_mm.L0Loss',
        loss_weight=dict(start_value=0.0, end_value=0.4, begin=20, end=60),
    ),
]
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
