_base_ = ['./dense_resnet18_imagenet.py']

model = dict(backbone=dict(depth=34))
