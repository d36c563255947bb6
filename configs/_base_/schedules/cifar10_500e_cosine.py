_base_ = './cifar10_500e.py'

# starts from a trained network, and ends with many epochs at low rates
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    by_epoch=True,
    T_max=500,
    convert_to_iter_based=True,
)
