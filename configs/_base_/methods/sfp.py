# Soft filter pruning (SFP) of the first conv of every block, so that the
# fraction of pruned MACs is about that of pruned filters. The rate is our
# choice. The published code also zeroes filters before a residual sum, whose
# channels cannot be removed.
custom_hooks = [
    dict(type='fgc_mm.SoftFilterPruningHook', pruning_rate=0.55),
]
