_base_ = ['./imagenet_130e.py']

# The published 130 epochs after 30 epochs of batch shaping at a constant rate.
# That batch shaping comes before, and its 30 epochs, are our reading.
param_scheduler = dict(milestones=[70, 100, 130])
train_cfg = dict(max_epochs=160)
