_base_ = ['./dense_cosine_resnet20_folder32.py']

# twice the channels and four times the MACs: a teacher for the others
model = dict(backbone=dict(base_channels=32), head=dict(in_channels=128))
