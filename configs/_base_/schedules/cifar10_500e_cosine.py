_base_ = './cifar10_500e.py'

# many epochs at low rates at the end
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    by_epoch=True,
    T_max=500,
    convert_to_iter_based=True,
)
