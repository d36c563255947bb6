_base_ = ['./bas_resnet20_cifar10.py', './_base_/methods/coupling.py']

# after the first 100 epochs, which train the gates by batch shaping alone
coupling = dict(
    _base_.coupling_loss,
    loss_weight=dict(start_value=0.0, end_value=0.003, begin=100, end=100),
)
model = dict(gate_losses=_base_.model.gate_losses + [coupling])
custom_hooks = _base_.custom_hooks + [dict(type='fgc_mm.FGCMemoryBankHook')]
