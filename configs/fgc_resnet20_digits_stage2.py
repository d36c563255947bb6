_base_ = ['./bas_resnet20_digits_stage2.py', './_base_/methods/coupling.py']

# coupled from its first epoch on, with a warm-up of 4 epochs
coupling = dict(_base_.coupling_loss, num_neighbors=20, warmup_epochs=4)
model = dict(gate_losses=_base_.model.gate_losses + [coupling])
custom_hooks = _base_.custom_hooks + [dict(type='fgc_mm.FGCMemoryBankHook')]
