_base_ = ['./bas_resnet20_cifar10_stage2.py', './_base_/methods/coupling.py']

# coupled from its first epoch on, with a warm-up of 20 epochs
model = dict(gate_losses=_base_.model.gate_losses + [_base_.coupling_loss])
custom_hooks = _base_.custom_hooks + [dict(type='fgc_mm.FGCMemoryBankHook')]
