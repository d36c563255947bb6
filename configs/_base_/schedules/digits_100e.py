optim_wrapper = dict(
    constructor='fgc_mm.JoinedGroupsConstructor',
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    ),
    # no weight decay on any parameter of a gate, its norm included
    paramwise_cfg=dict(custom_keys={'backbone.gates': dict(decay_mult=0.0)}),
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[60, 75, 90], gamma=0.1
)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=5)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
