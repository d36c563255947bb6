_base_ = ['./bas_resnet18_imagenet.py', './_base_/methods/coupling.py']

# after the first 30 epochs, which train the gates by batch shaping alone
coupling = dict(
    _base_.coupling_loss,
    sites=1,  # the last one
    loss_weight=dict(start_value=0.0, end_value=0.003, begin=30, end=30),
)
model = dict(gate_losses=_base_.model.gate_losses + [coupling])
custom_hooks = _base_.custom_hooks + [dict(type='fgc_mm.FGCMemoryBankHook')]
