_base_ = ['./bas_resnet18_imagenet_stage2.py']

# coupled from its first epoch on, with a warm-up of 20 epochs
model = dict(
    gate_losses=_base_.model.gate_losses
    + [
        dict(
            type='fgc_mm.FeatureGateCouplingLoss',
            sites=1,  # the last one
            num_neighbors=200,
            warmup_epochs=20,  # ours: as on CIFAR-10
            loss_weight=0.003,
        ),
    ],
)
custom_hooks = _base_.custom_hooks + [dict(type='fgc_mm.FGCMemoryBankHook')]
