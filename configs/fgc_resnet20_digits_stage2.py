_base_ = ['./bas_resnet20_digits_stage2.py']

# coupled from its first epoch on, with a warm-up of 4 epochs
model = dict(
    gate_losses=_base_.model.gate_losses
    + [
        dict(
            type='fgc_mm.FeatureGateCouplingLoss',
            sites=2,  # the last two
            num_neighbors=20,
            warmup_epochs=4,
            loss_weight=0.003,
        ),
    ],
)
custom_hooks = _base_.custom_hooks + [dict(type='fgc_mm.FGCMemoryBankHook')]
