_base_ = ['./cifar10_500e.py']

# The published 200 epochs with steps at 60, 120 and 160, after 100 epochs of
# batch shaping at a constant rate. That batch shaping comes before is our
# reading.
param_scheduler = dict(milestones=[160, 220, 260], gamma=0.2)
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=128)
