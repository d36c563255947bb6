_base_ = [
    './_base_/models/gated_cifar_resnet.py',
    './_base_/datasets/folder32.py',
    './_base_/schedules/ftwt_200e.py',
    './_base_/methods/ftwt.py',
    './_base_/default_runtime.py',
]

# starts from a dense network: tools/compare.py --pretrain, or
# --cfg-options load_from=...
model = dict(
    backbone=dict(
        gate=dict(_delete_=True, **_base_.gate),
        sites=dict(_delete_=True, **_base_.sites),
    ),
    # plan_budget.py, or compare.py --match-macs, finds the ratio of a budget
    gate_losses=_base_.gate_losses,
)
train_dataloader = dict(batch_size=128)
