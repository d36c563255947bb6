# Predictors learn for the first half; then they stay, and the network adapts.
gate = dict(type='fgc_mm.FTWTGate')
sites = dict(type='auto', residual=True)
gate_losses = [
    dict(
        type='fgc_mm.MaskPredictionLoss',
        ratio=0.9,  # tools/analysis_tools/plan_budget.py finds another
        loss_weight=dict(start_value=1.0, end_value=0.0, begin=100, end=100),
    ),
]
custom_hooks = [
    dict(type='fgc_mm.LossProgressHook'),
    dict(type='fgc_mm.GateLRHook', lr=0.1),
]
