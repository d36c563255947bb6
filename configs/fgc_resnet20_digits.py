_base_ = ['./bas_resnet20_digits.py']

# after the first 8 epochs, which train the gates by batch shaping alone
model = dict(
    gate_losses=_base_.model.gate_losses
    + [
        dict(
            type='fgc_mm.FeatureGateCouplingLoss',
            sites=2,  # the last 2
            num_neighbors=20,
            warmup_epochs=2,
            loss_weight=dict(
                start_value=0.0, end_value=0.003, begin=8, end=8
            ),
        ),
    ],
)
custom_hooks = _base_.custom_hooks + [dict(type='fgc_mm.FGCMemoryBankHook')]
