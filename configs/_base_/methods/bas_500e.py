# Batch shaping for 100 epochs; the L0 loss grows from epoch 100 to 300.
gate_losses = [
    dict(
        type='fgc_mm.BatchShapingLoss',
        loss_weight=dict(start_value=0.75, end_value=0.0, begin=0, end=100),
    ),
    dict(
        type='fgc_mm.L0Loss',
        loss_weight=dict(start_value=0.0, end_value=0.4, begin=100, end=300),
    ),
]
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
