_base_ = ['./bas_resnet18_imagenet.py']

# the first 30 of 160 epochs: batch shaping alone, at a constant rate
model = dict(gate_losses=_base_.model.gate_losses[:1])
param_scheduler = None
train_cfg = dict(max_epochs=30)
