# CIFAR-100. Our reading: the papers give 200 epochs and the steps of the
# learning rate, but not whether batch shaping comes before or within them.
# Here it comes before and takes 100 epochs, as on CIFAR-10. The L0 loss then
# grows until the learning rate drops for the first time (epoch 160), as there.
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
