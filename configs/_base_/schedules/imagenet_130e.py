optim_wrapper = dict(
    constructor='fgc_mm.JoinedGroupsConstructor',
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    ),
    # no weight decay on any parameter of a gate, its norm included
    paramwise_cfg=dict(custom_keys={'backbone.gates': dict(decay_mult=0.0)}),
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[40, 70, 100], gamma=0.1
)
train_cfg = dict(by_epoch=True, max_epochs=130, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)
