# The 200-epoch schedule, scaled to 500 epochs.
gate = dict(type='fgc_mm.FTWTGate')
sites = dict(type='auto', residual=True)
gate_losses = [
    dict(
        type='fgc_mm.MaskPredictionLoss',
        # tools/analysis_tools/plan_budget.py finds another
        ratio=0.68,
        loss_weight=dict(start_value=1.0, end_value=0.0, begin=250, end=250),
    ),
]
custom_hooks = [
    dict(type='fgc_mm.LossProgressHook'),
    dict(type='fgc_mm.GateLRHook', lr=0.1),
]
