_base_ = [
    './_base_/models/gated_resnet18_imagenet.py',
    './_base_/datasets/imagenet.py',
    './_base_/schedules/imagenet_130e.py',
    './_base_/methods/bas_130e.py',
    './_base_/default_runtime.py',
]

model = dict(gate_losses=_base_.gate_losses)
