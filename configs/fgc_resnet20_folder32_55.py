_base_ = ['./bas_resnet20_folder32_55.py']

# after the first 100 epochs, which train the gates by batch shaping alone
model = dict(
    gate_losses=_base_.model.gate_losses
    + [
        dict(
            type='fgc_mm.FeatureGateCouplingLoss',
            sites=2,  # the last two
            num_neighbors=200,
            warmup_epochs=20,
            loss_weight=dict(
                start_value=0.0, end_value=0.003, begin=100, end=100
            ),
        ),
    ],
)
custom_hooks = _base_.custom_hooks + [dict(type='fgc_mm.FGCMemoryBankHook')]
