_base_ = ['./cifar10_500e.py']

# the 500 epochs, scaled to 100
param_scheduler = dict(milestones=[60, 75, 90])
train_cfg = dict(max_epochs=100, val_interval=5)
auto_scale_lr = dict(base_batch_size=64)
