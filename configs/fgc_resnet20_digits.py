_base_ = ['./bas_resnet20_digits.py', './_base_/methods/coupling.py']

# after the first 20 epochs, which train the gates by batch shaping alone
coupling = dict(
    _base_.coupling_loss,
    num_neighbors=20,
    warmup_epochs=4,
    loss_weight=dict(start_value=0.0, end_value=0.003, begin=20, end=20),
)
model = dict(gate_losses=_base_.model.gate_losses + [coupling])
custom_hooks = _base_.custom_hooks + [dict(type='fgc_mm.FGCMemoryBankHook')]
