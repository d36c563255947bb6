# starts from the dense network, with batches of 128; plain momentum; the
# gates keep a learning rate of 0.1 (GateLRHook)
optim_wrapper = dict(
    constructor='fgc_mm.JoinedGroupsConstructor',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4),
    # no weight decay on any parameter of a gate
    paramwise_cfg=dict(custom_keys={'backbone.gates': dict(decay_mult=0.0)}),
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[81, 122, 151], gamma=0.1
)
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
