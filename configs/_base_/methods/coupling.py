# Published for CIFAR-10; the warm-up on other data sets is ours.
coupling_loss = dict(
    type='fgc_mm.FeatureGateCouplingLoss',
    sites=2,  # the last two
    num_neighbors=200,
    warmup_epochs=20,
    loss_weight=0.003,
)
