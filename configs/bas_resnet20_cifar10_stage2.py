_base_ = ['./bas_resnet20_cifar10.py']

# the last 400 of 500 epochs, from the checkpoint of stage 1
l0 = _base_.model.gate_losses[1]
model = dict(
    gate_losses=[
        dict(l0, loss_weight=dict(l0.loss_weight, begin=0, end=200)),
    ],
)
param_scheduler = dict(milestones=[200, 275, 350])
train_cfg = dict(max_epochs=400)
default_hooks = dict(checkpoint=dict(keep_epochs=[]))
# python tools/train.py configs/bas_resnet20_cifar10_stage1.py
load_from = 'work_dirs/bas_resnet20_cifar10_stage1/epoch_100.pth'
