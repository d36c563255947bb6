_base_ = [
    './_base_/models/gated_cifar_resnet.py',
    './_base_/datasets/folder32.py',
    './_base_/schedules/cifar10_500e_cosine.py',
    './_base_/methods/fgcplus_500e_55.py',
    './_base_/default_runtime.py',
]

# starts from a dense network: tools/compare.py --pretrain
# configs/dense_resnet20_folder32.py, or --cfg-options load_from=...
model = dict(
    backbone=dict(gate=_base_.gate),
    distillation=_base_.distillation,
    gate_losses=_base_.gate_losses,
)
