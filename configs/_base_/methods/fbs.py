# The density falls while the learning rate is high. To see the MACs of a
# density: tools/analysis_tools/get_macs.py CONFIG --keep-ratio DENSITY
gate = dict(
    type='fgc_mm.FBSGate',
    density=dict(start_value=1.0, end_value=0.4375, begin=0, end=250),
)
gate_losses = [dict(type='fgc_mm.SaliencyL1Loss', loss_weight=1e-8)]
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
