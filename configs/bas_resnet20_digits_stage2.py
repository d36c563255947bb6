_base_ = ['./bas_resnet20_digits.py']

# the last 80 of 100 epochs, from the checkpoint of stage 1
l0 = _base_.model.gate_losses[1]
model = dict(
    gate_losses=[
        dict(l0, loss_weight=dict(l0.loss_weight, begin=0, end=40)),
    ],
)
param_scheduler = dict(milestones=[40, 55, 70])
train_cfg = dict(max_epochs=80)
default_hooks = dict(checkpoint=dict(keep_epochs=[]))
# python tools/train.py configs/bas_resnet20_digits_stage1.py
load_from = 'work_dirs/bas_resnet20_digits_stage1/epoch_20.pth'
