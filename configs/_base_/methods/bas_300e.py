# CIFAR-100. Ours: the papers give 200 epochs and their steps, and not whether
# batch shaping comes before or inside them. Here it comes before, as on
# CIFAR-10, and takes as many epochs (100); the L0 loss then grows until the
# learning rate drops for the first time (epoch 160), as it does there.
gate_losses = [
    dict(
        type='fgc_mm.BatchShapingLoss',
        loss_weight=dict(start_value=0.75, end_value=0.0, begin=0, end=100),
    ),
    dict(
        type='fgc_mm.L0Loss',
        loss_weight=dict(start_value=0.0, end_value=0.4, begin=100, end=160),
    ),
]
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
