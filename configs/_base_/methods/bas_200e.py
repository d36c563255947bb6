# The 500-epoch schedule, scaled to 200 epochs.
gate_losses = [
    dict(
        type='fgc_mm.BatchShapingLoss',
        loss_weight=dict(start_value=0.75, end_value=0.0, begin=0, end=40),
    ),
    dict(
        type='fgc_mm.L0Loss',
        loss_weight=dict(start_value=0.0, end_value=0.4, begin=40, end=120),
    ),
]
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
