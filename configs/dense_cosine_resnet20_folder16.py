_base_ = ['./dense_resnet20_folder16.py']

# the learning rate of fgcplus_resnet20_folder16_55.py
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    by_epoch=True,
    T_max=500,
    convert_to_iter_based=True,
)
