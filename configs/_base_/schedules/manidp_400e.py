# starts from the trained dense network, with batches of 128
optim_wrapper = dict(
    constructor='fgc_mm.JoinedGroupsConstructor',
    optimizer=dict(
        type='SGD', lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4
    ),
    # no weight decay on any parameter of a gate
    paramwise_cfg=dict(custom_keys={'backbone.gates': dict(decay_mult=0.0)}),
)
param_scheduler = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    T_max=400,
    convert_to_iter_based=True,
)
train_cfg = dict(by_epoch=True, max_epochs=400, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
