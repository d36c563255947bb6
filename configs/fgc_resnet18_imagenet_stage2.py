_base_ = ['./bas_resnet18_imagenet_stage2.py', './_base_/methods/coupling.py']

# coupled from its first epoch on, with a warm-up of 20 epochs
coupling = dict(_base_.coupling_loss, sites=1)
model = dict(gate_losses=_base_.model.gate_losses + [coupling])
custom_hooks = _base_.custom_hooks + [dict(type='fgc_mm.FGCMemoryBankHook')]
