"""One of two gloo processes; not a test, but what tests look at."""

import os
import signal
import sys
from pathlib import Path

import digits_run
import torch
from mmengine.dist import all_gather
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from rank_states import thresholds
from torch import distributed as dist

import fgc_mm  # noqa: F401
from fgc_mm.evaluation import DynamicMACs
from fgc_mm.gates import FTWTGate
from fgc_mm.losses import (
    CoupledBatch,
    FeatureGateCouplingLoss,
    GateBatch,
    MaskPredictionLoss,
)
from fgc_mm.memory.gather import gather_tables
from fgc_mm.sites import GateRecord, GateSite


def uneven(rank):
    """Each rank's rows, together; one rank may have none."""
    own = torch.arange(6.0).view(3, 2) + 10 * rank
    return {
        'uneven': gather_tables([own[: 3 - 2 * rank]])[0],
        'empty': gather_tables([own[: 3 * rank].bfloat16()])[0],
        'numbers': gather_tables([torch.tensor([7, 8, 9])[: 1 + rank]])[0],
    }


def written(rank):
    """Banks after both ranks wrote their half, with a row in common."""
    torch.manual_seed(0)
    loss = FeatureGateCouplingLoss(sites=1, num_neighbors=2)
    loss.build_banks([GateSite('a', 'a', ('b',), 2, 3)], 9)
    halves = torch.tensor([[1, 4, 6], [3, 4, 0]])
    values = torch.randn(2, 2, 3, 3)
    loss._pending = {'a': CoupledBatch(halves[rank], *values[rank])}
    loss.write_banks()
    return digits_run.bank_rows(loss)


def trained(folder, name='run', hooks=(), **options):
    """A real run of 41 images: the last step repeats one of them."""
    cfg = digits_run.tiny_config(
        folder / name,
        **{
            'randomness.diff_rank_seed': True,
            'train_dataloader.dataset.indices': 41,
            'train_dataloader.batch_size': 7,
            'launcher': 'pytorch',
            'model_wrapper_cfg': dict(
                type='MMDistributedDataParallel',
                broadcast_buffers=False,
                device_ids=None,
            ),
            **options,
        },
    )
    runner = digits_run.start(cfg)
    for hook in hooks:
        runner.register_hook(hook, priority='VERY_HIGH')
    runner.train()
    loss = digits_run.coupling(runner)
    return {
        'banks': digits_run.bank_rows(loss),
        'weights': {
            name: p.detach() for name, p in runner.model.named_parameters()
        },
        'random': all_gather(torch.rand(1)),
        'progress': runner.model.module.progress.epoch,
        'written': torch.load(
            folder / name / 'epoch_2.pth', weights_only=False
        )['fgc_memory_banks']['coupling'],
    }


def resumed(folder):
    """The second epoch of that run, from its checkpoint."""
    checkpoint = str(folder / 'run' / 'epoch_1.pth')
    return trained(folder, 'resumed', resume=True, load_from=checkpoint)


class TellHook(Hook):
    """Signals one process after the first of three steps.

    The ranks agree a step later.
    """

    def after_train_iter(self, runner, *_, **__):
        self.runner = runner
        if runner.iter == 0 and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGUSR1)


def stopped(folder):
    """That run, stopped within an epoch and resumed."""
    tell = TellHook()
    try:
        trained(folder, 'stopped', [tell])
    except SystemExit as error:
        code = error.code
    checkpoint = str(folder / 'stopped' / 'interrupted.pth')
    found = norms(tell.runner, checkpoint)
    result = trained(folder, 'again', resume=True, load_from=checkpoint)
    return dict(result, code=code, **found)


def norms(runner, checkpoint):
    """The running means of a gate's norm: the ranks', and the saved ones."""
    name = 'backbone.gates.layer1-0-conv1.norm.running_mean'
    means = all_gather(runner.model.module.state_dict()[name])
    # now the file is complete
    saved = torch.load(checkpoint, weights_only=False)
    return {'means': means, 'saved': saved['state_dict'][name]}


def infinite_epochs(folder):
    """The epoch at every iteration of an iteration-based run."""
    cfg = digits_run.tiny_config(
        folder / 'infinite',
        **{
            'train_dataloader.sampler.type': 'InfiniteSampler',
            'train_dataloader.batch_size': 10,
            'train_dataloader.dataset.indices': 40,
            'launcher': 'pytorch',
            'model_wrapper_cfg': dict(
                type='MMDistributedDataParallel',
                broadcast_buffers=False,
                device_ids=None,
            ),
        },
    )
    cfg.train_cfg = dict(by_epoch=False, max_iters=6)
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint.by_epoch = False
    runner = digits_run.start(cfg)
    runner.train()
    return runner.model.module.progress.epoch


def weightless(folder):
    """Steps of a run whose losses' weights are 0; DDP looks for no unused.

    And the seeds of its next epoch's batches.
    """
    weights = {f'model.gate_losses.{n}.loss_weight': 0.0 for n in range(3)}
    cfg = digits_run.tiny_config(
        folder / 'weightless',
        epochs=1,
        **weights,
        **{
            'train_dataloader.batch_size': 4,
            'launcher': 'pytorch',
            'model_wrapper_cfg': dict(
                type='MMDistributedDataParallel',
                broadcast_buffers=False,
                find_unused_parameters=False,
                device_ids=None,
            ),
        },
    )
    runner = digits_run.start(cfg)
    runner.train()
    batches = runner.train_dataloader.batch_sampler
    return runner.iter, [batch.seed for batch in batches]


def own_draws(folder, hook):
    """The ranks' random numbers after a run that seeds all ranks equally.

    And the running means of a gate's norm, of rank 0 in the checkpoint.
    """
    cfg = digits_run.tiny_config(
        folder / hook,
        epochs=1,
        launcher='pytorch',
        model_wrapper_cfg=dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            device_ids=None,
        ),
    )
    if hook != 'exact_resume':
        del cfg.default_hooks['exact_resume']
    runner = digits_run.start(cfg)
    runner.train()
    draws = all_gather(torch.rand(3))
    return {'draws': draws, **norms(runner, folder / hook / 'epoch_1.pth')}


def cooled():
    """Two steps of FTWT with a weight of 0; DDP looks for no unused."""
    torch.manual_seed(0)
    gate = FTWTGate(4, 6)
    model = torch.nn.parallel.DistributedDataParallel(gate)
    loss = MaskPredictionLoss(0.7, loss_weight=0.0)
    for _ in range(2):
        maps = torch.rand(3, 4, 2, 2)
        decision = model(maps)
        record = GateRecord(None, torch.rand(3, 6, 2, 2), *decision)
        loss(GateBatch([record])).backward()
    return gate.predict.weight.grad


def evaluated(rank):
    """DynamicMACs over 7 images: rank 1's last batch is padded."""
    path = Path(__file__).parents[1] / 'evaluation' / 'predictions.py'
    names = {}
    exec(path.read_text(), names)
    images = names['predictions'](7)
    padded = [*images, images[0]]  # what a DistributedSampler appends
    metric = DynamicMACs()
    own = padded[rank::2]
    for batch in (own[:3], own[3:]):
        metric.process(None, batch)
    return metric.evaluate(7)


def main():
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder / "meet"}',
        rank=rank,
        world_size=2,
    )
    DefaultScope.get_instance('two_ranks', scope_name='mmpretrain')
    result = dict(uneven(rank), rank=rank)
    result['written'] = written(rank)
    result['metrics'] = evaluated(rank)
    result['thresholds'] = thresholds(list(range(rank, 8, 2)))
    result['cooled'] = cooled()
    result['trained'] = trained(folder)
    result['resumed'] = resumed(folder)
    result['stopped'] = stopped(folder)
    result['weightless'], result['seeds'] = weightless(folder)
    for hook in ('exact_resume', 'loss_progress'):
        result[hook] = own_draws(folder, hook)
    result['infinite'] = infinite_epochs(folder)
    torch.save(result, folder / f'{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
