_base_ = ['./dense_cosine_resnet20_folder32.py']

# 47.5 % of the MACs: the static network that a pruned one has to surpass
model = dict(backbone=dict(base_channels=11), head=dict(in_channels=44))
