_base_ = ['./dense_resnet20_cifar10.py']

# Soft filter pruning (SFP) of the first conv of every block: about as many
# MACs go as filters. The rate is ours; the published code also zeroes the
# filters in front of the residual sum, whose channels no layer can lose here.
custom_hooks = [
    dict(type='fgc_mm.SoftFilterPruningHook', pruning_rate=0.55),
]
