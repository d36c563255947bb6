import sys, torch, cProfile, pstats
sys.path.insert(0,'tests/tools')
import test_prune_static as T
from fgc_mm.deploy.compaction.static_pruning import prune_static
m=T.classifier(dict(type='SEResNet', depth=50, base_channels=8, stem_channels=8),256)
x=torch.randn(2,3,32,32)
pr=cProfile.Profile(); pr.enable(); prune_static(m,'group_norm',.5,x); pr.disable()
pstats.Stats(pr).sort_stats('cumtime').print_stats(28)
