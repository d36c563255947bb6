_base_ = ['./manidp_resnet20_cifar10.py']

saliency, similarity = _base_.model.gate_losses
model = dict(
    backbone=dict(backbone=dict(depth=56)),
    # the published command for this network
    gate_losses=[saliency, dict(similarity, loss_weight=1.0)],
)
# python tools/train.py configs/dense_resnet56_cifar10.py
load_from = 'work_dirs/dense_resnet56_cifar10/epoch_500.pth'
