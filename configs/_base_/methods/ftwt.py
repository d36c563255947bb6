# Predictors learn for the first half; then they stay, and the network adapts.
gate = dict(type='fgc_mm.FTWTGate')
# of a ResNet: the stem, and both convs of every block
sites = dict(
    type='auto', residual=True, patterns=['conv1', 'layer*.*.conv[12]']
)
gate_losses = [
    dict(
        type='fgc_mm.MaskPredictionLoss',
        # published for ResNet-56; plan_budget.py finds another
        ratio=0.8,
        loss_weight=dict(start_value=1.0, end_value=0.0, begin=100, end=100),
    ),
]
custom_hooks = [
    dict(type='fgc_mm.LossProgressHook'),
    dict(type='fgc_mm.GateLRHook', lr=0.1),
]
