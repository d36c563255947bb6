# Gates learn in the first half of the training. Then the optimizer's momentum
# moves them for some more steps, and the network adapts to the fixed gates.
gate = dict(type='fgc_mm.FTWTGate')
# the stem and both convs of every block of a ResNet
sites = dict(
    type='auto', residual=True, patterns=['conv1', 'layer*.*.conv[12]']
)
gate_losses = [
    dict(
        type='fgc_mm.MaskPredictionLoss',
        # published for ResNet-56; plan_budget.py finds the ratio of a budget
        ratio=0.8,
        loss_weight=dict(start_value=1.0, end_value=0.0, begin=100, end=100),
    ),
]
custom_hooks = [
    dict(type='fgc_mm.LossProgressHook'),
    dict(type='fgc_mm.GateLRHook', lr=0.1),
]
