# ImageNet. Our reading: the papers give 130 epochs and the steps of the
# learning rate, but not whether batch shaping comes before or within them.
# Here it comes before, as on CIFAR-10, for 30 epochs: a quarter of the epochs
# that follow, as 100 of 400 there. The L0 loss then grows until the learning
# rate drops for the first time (epoch 70).
gate_losses = [
    dict(
        type='fgc_mm.BatchShapingLoss',
        loss_weight=dict(start_value=0.75, end_value=0.0, begin=0, end=30),
    ),
    dict(
        type='fgc_mm.L0Loss',
        loss_weight=dict(start_value=0.0, end_value=0.4, begin=30, end=70),
    ),
]
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
