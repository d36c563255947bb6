_base_ = ['./bas_resnet20_cifar10.py']

# the first 100 of 500 epochs: batch shaping alone, at a constant rate
model = dict(gate_losses=_base_.model.gate_losses[:1])
param_scheduler = None
train_cfg = dict(max_epochs=100)
