# Both convs of a block; the thresholds rise while the learning rate is high.
gate = dict(
    type='fgc_mm.ManiDPGate',
    keep=dict(
        start_value=1.0, end_value=0.61, begin=0, end=300, curve='cosine'
    ),
)
sites = dict(type='auto', residual=True)
gate_losses = [
    dict(
        type='fgc_mm.SaliencyL1Loss',
        reduction='mean',
        easiness=True,
        loss_weight=5e-3,
    ),
    dict(type='fgc_mm.GramSimilarityLoss', loss_weight=0.1),
]
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
