_base_ = ['./bas_resnet20_digits.py']

# the first 20 of 100 epochs: batch shaping alone, at a constant rate
model = dict(gate_losses=_base_.model.gate_losses[:1])
param_scheduler = None
train_cfg = dict(max_epochs=20)
