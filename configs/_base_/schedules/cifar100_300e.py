# The published 200 epochs with steps at 60, 120 and 160, after 100 epochs of
# batch shaping at a constant rate; that these come before is our reading.
optim_wrapper = dict(
    constructor='fgc_mm.JoinedGroupsConstructor',
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    ),
    # no weight decay on any parameter of a gate, its norm included
    paramwise_cfg=dict(custom_keys={'backbone.gates': dict(decay_mult=0.0)}),
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[160, 220, 260], gamma=0.2
)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
