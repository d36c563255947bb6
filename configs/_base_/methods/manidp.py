# Settings of the published code. keep=0.6 is from its command for ResNet-56,
# and our choice for other networks; it is reached in the last epoch (numbered
# from 0). Gates at both convs of every block, neither at the stem nor at
# downsample convs.
gate = dict(
    type='fgc_mm.ManiDPGate',
    keep=dict(
        start_value=1.0, end_value=0.6, begin=0, end=399, curve='cosine'
    ),
)
sites = dict(type='auto', residual=True, patterns=['layer*.*.conv[12]'])
gate_losses = [
    dict(
        type='fgc_mm.SaliencyL1Loss',
        reduction='site_means',
        easiness=True,
        loss_weight=5e-3,
    ),
    # the published default; the published command for ResNet-56 has 1.0
    dict(type='fgc_mm.GramSimilarityLoss', loss_weight=0.1, detach=False),
]
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
