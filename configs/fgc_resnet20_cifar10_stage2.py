_base_ = ['./bas_resnet20_cifar10_stage2.py']

# coupled from its first epoch on, with a warm-up of 20 epochs
model = dict(
    gate_losses=_base_.model.gate_losses
    + [
        dict(
            type='fgc_mm.FeatureGateCouplingLoss',
            sites=2,  # the last two
            num_neighbors=200,
            warmup_epochs=20,
            loss_weight=0.003,
        ),
    ],
)
custom_hooks = _base_.custom_hooks + [dict(type='fgc_mm.FGCMemoryBankHook')]
