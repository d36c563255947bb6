_base_ = ['./manidp_resnet18_imagenet.py']

model = dict(backbone=dict(backbone=dict(depth=34)))
# python tools/train.py configs/dense_resnet34_imagenet.py
load_from = 'work_dirs/dense_resnet34_imagenet/epoch_160.pth'
