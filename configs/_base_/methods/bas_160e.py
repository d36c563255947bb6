# ImageNet. Ours: the papers give 130 epochs and their steps, and not whether
# batch shaping comes before or inside them. Here it comes before, as on
# CIFAR-10; 30 epochs, a quarter of what follows, as 100 are of 400 there. The
# L0 loss then grows until the learning rate drops for the first time (70).
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
