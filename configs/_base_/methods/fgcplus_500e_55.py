_base_ = ['./coupling.py']

# From open gates to 55 % pruned MACs in a single training, in small steps.
# Each part can be left out or changed separately.
gate = dict(
    # all channels of all images open at first: a probability of 0.95
    weight_init='zero',
    init_bias=3.0,
    # the soft gradient becomes slightly steeper
    temperature=dict(start_value=0.67, end_value=0.5, begin=0, end=500),
    # the samples become the masks of evaluation
    noise=dict(start_value=1.0, end_value=0.0, begin=250, end=450),
)
gate_losses = [
    dict(
        type='fgc_mm.MACsTargetLoss',
        pruning_ratio=dict(start_value=0.0, end_value=0.55, begin=0, end=200),
        loss_weight=100.0,
    ),
    _base_.coupling_loss,
]
custom_hooks = [
    dict(type='fgc_mm.LossProgressHook'),
    dict(type='fgc_mm.FGCMemoryBankHook'),
]
