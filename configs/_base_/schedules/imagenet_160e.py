# The published 130 epochs with steps at 40, 70 and 100, after 30 epochs of
# batch shaping at a constant rate; that these come before, and that they are
# 30, is our reading.
optim_wrapper = dict(
    constructor='fgc_mm.JoinedGroupsConstructor',
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    ),
    # no weight decay on any parameter of a gate, its norm included
    paramwise_cfg=dict(custom_keys={'backbone.gates': dict(decay_mult=0.0)}),
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[70, 100, 130], gamma=0.1
)
train_cfg = dict(by_epoch=True, max_epochs=160, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)
