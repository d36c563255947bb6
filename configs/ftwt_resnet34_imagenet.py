_base_ = ['./ftwt_resnet18_imagenet.py']

model = dict(
    backbone=dict(backbone=dict(depth=34)),
    # published: 0.92 to 0.97
    gate_losses=[{**_base_.model.gate_losses[0], 'ratio': 0.92}],
)
# python tools/train.py configs/dense_resnet34_imagenet.py
load_from = 'work_dirs/dense_resnet34_imagenet/epoch_160.pth'
