"""One of several gloo processes that couple together.

Not a test, but what tests look at; with one process it is what they compare
with, and no process group is needed.
"""

import sys
from pathlib import Path

import digits_run
import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, DefaultScope
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fgc_mm.engine import sharded_bank_saver
from fgc_mm.engine.bank_checks import check_same_banks, check_same_length
from fgc_mm.engine.sharded_bank_saver import banks_state
from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import FeatureGateCouplingLoss, GateBatch
from fgc_mm.memory import (
    Shard,
    sharded_nearest_neighbors,
    sharded_neighbor_contrast,
)
from fgc_mm.sites import GateRecord, GateSite

LENGTH, IMAGES, STEPS = 43, 12, 3
CASES = {
    'log_sum': dict(),
    'paper': dict(preset='paper'),
    'many': dict(num_neighbors=42, form='sum_log'),
    'warming_up': dict(warmup_epochs=100),
    'gate_shared': dict(neighbor_source='gate', share_neighbors=True),
    'bfloat16': dict(dtype=torch.bfloat16),
    'float16': dict(dtype=torch.float16),
}


class Net(nn.Module):
    """Records of two sites from vectors, and their coupling loss."""

    def __init__(self, options):
        super().__init__()
        options = dict(dict(num_neighbors=7), **options)
        dtype = options.pop('dtype', torch.float32)
        shard = options.pop('shard')
        torch.manual_seed(4)
        self.layer = nn.Linear(6, 8)
        self.coupling = FeatureGateCouplingLoss(loss_weight=0.5, **options)
        self.sites = [
            GateSite(name, name, (f'{name}2',), 2, 4) for name in 'ab'
        ]
        self.coupling.build_banks(self.sites, LENGTH, dtype=dtype, shard=shard)

    def forward(self, inputs, indices):
        both = self.layer(inputs).split(4, dim=1)
        records = [
            GateRecord(site, x.relu()[:, :, None, None], x, x.sigmoid(), x > 0)
            for site, x in zip(self.sites, both)
        ]
        samples = [dict(sample_idx=int(i)) for i in indices]
        return self.coupling(GateBatch(records, samples, Progress(50, 0)))


def batch(step):
    """The whole batch; in the last step two ranks have the same image."""
    generator = torch.Generator().manual_seed(step)
    inputs = 2 * torch.randn(IMAGES, 6, generator=generator)
    indices = torch.randperm(LENGTH, generator=generator)[:IMAGES]
    if step == STEPS - 1:
        # as a sampler that rounds up does: the first image again at the end
        inputs[-1], indices[-1] = inputs[0], indices[0]
        inputs[-1] += 1  # augmented otherwise
    return inputs, indices


def coupled(shard, options, rank=0, world=1):
    """Losses and gradients of some steps, and the banks after each."""
    net = Net(dict(options, shard=shard))
    model = DistributedDataParallel(net) if world > 1 else net
    size = IMAGES // world
    own = slice(rank * size, (rank + 1) * size)
    result = []
    for step in range(STEPS):
        inputs, indices = (x[own] for x in batch(step))
        net.zero_grad()
        loss = model(inputs, indices)
        loss.backward()
        agreement = net.coupling.agreement(IMAGES)
        pending = dict(net.coupling._pending)
        names, batches = zip(*pending.items())
        near = net.coupling._nearest(names, batches, 'feature')
        found = dict(zip(names, near))
        net.coupling.write_banks()
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.1 * p.grad / p.grad.norm()
        result.append(
            dict(
                loss=loss.detach(),
                grads={n: p.grad.clone() for n, p in net.named_parameters()},
                agreement=agreement,
                found=found,
                banks=banks_state(net.coupling),
                held=net.coupling.banks['a'].gate.rows.shape,
            )
        )
        if rank == 0:
            copy = {
                f'{site}.{space}': state['rows'].clone()
                for site, spaces in result[-1]['banks'].items()
                for space, state in spaces.items()
            }
            result[-1]['banks'] = copy
    return result


def uneven(rank):
    """Neighbours and contrast if numbers of queries differ between ranks."""
    generator = torch.Generator().manual_seed(1)
    table = torch.randint(-2, 3, (LENGTH, 3), generator=generator).float()
    queries = torch.randint(-2, 3, (9, 3), generator=generator).float()
    own = torch.arange(9) * 5
    mine = slice(*((0, 2), (2, 9), (3, 4))[rank])
    shard = Shard.of_this_rank(LENGTH)
    rows = table[shard.start : shard.stop]
    found = {
        k: sharded_nearest_neighbors(queries[mine], rows, shard, k, own[mine])
        for k in (1, 5, 22, LENGTH - 1)
    }
    wide = queries[mine].double().requires_grad_()
    value = sharded_neighbor_contrast(
        wide, rows, shard, found[5], 0.1, eps=0.01
    )
    value.backward()
    large = queries[mine].clone().requires_grad_()
    hot = sharded_neighbor_contrast(
        large, 30 * rows, shard, found[1], 0.07, 'sum_log'
    )
    hot.backward()
    return dict(
        table=table,
        queries=queries[mine],
        own=own[mine],
        found=found,
        value=value.detach(),
        grad=wide.grad,
        hot=hot.detach(),
        hot_grad=large.grad,
    )


def said(check, *arguments):
    """The sentence with which a check refuses, or None."""
    try:
        check(*arguments)
    except FGCError as error:
        return str(error)
    return None


def refused(rank):
    """The error of every rank where one of them is different."""
    net, cpu = Net(dict(shard=False)), torch.device('cpu')
    result = dict(
        alike=said(check_same_banks, net.coupling),
        same=said(check_same_length, 9, cpu),
        longer=said(check_same_length, 9 + (rank == 1), cpu),
        shorter=said(check_same_length, 9 - (rank == 1), cpu),
    )
    for site, space in (('b', 'gate'), ('a', 'feature')):
        net = Net(dict(shard=False))
        if rank == 1:
            row = getattr(net.coupling.banks[site], space).rows[40]
            row[2] = row[2].nextafter(torch.tensor(2.0))
        result[space] = said(check_same_banks, net.coupling)
    return result


@HOOKS.register_module()
class TouchHook(Hook):
    """Changes a bank on one rank alone."""

    def after_train_iter(self, runner, *_, **__):
        if runner.iter == 1 and dist.get_rank() == 1:
            banks = digits_run.coupling(runner).banks
            next(iter(banks.values())).feature.rows[7, 3] += 1e-6


def refused_runs(folder, rank):
    """What ends real runs in which one rank is different."""
    other_data = {'train_dataloader.dataset.indices': 41 + (rank == 1)}
    touched = digits_run.start(run_config(folder / 'touched', shard=False))
    touched.register_hook(TouchHook(), priority='HIGHEST')
    other = digits_run.start(
        run_config(folder / 'other', shard=False, **other_data)
    )
    return dict(data=said(other.train), bank=said(touched.train))


def run_config(work_dir, shard, **options):
    """Config of a real run, as one of several processes or alone."""
    options = {
        'custom_hooks.1.shard': shard,
        'custom_hooks.1.check_interval': 2,
        'train_dataloader.dataset.indices': 41,
        'train_dataloader.batch_size': 6,
        # at 0.1 a difference in rounding soon turns over a hard gate
        'optim_wrapper.optimizer.lr': 0.001,
        **options,
    }
    if get_world_size() > 1:
        options['launcher'] = 'pytorch'
        options['model_wrapper_cfg'] = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            device_ids=None,
        )
    return digits_run.tiny_config(work_dir, epochs=2, **options)


def trained(folder, shard, resume=None):
    """A real run: banks, weights, and its checkpoint's path."""
    work_dir = folder / f'run{shard}{bool(resume)}'
    options = {}
    if resume:
        options.update(resume=True, load_from=str(resume))
    runner = digits_run.start(run_config(work_dir, shard, **options))
    runner.train()
    whole = banks_state(digits_run.coupling(runner))
    return dict(
        banks=whole if get_world_size() == 1 or dist.get_rank() == 0 else None,
        weights=digits_run.weights(runner),
        checkpoint=str(work_dir / 'epoch_2.pth'),
    )


def main():
    folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder / "meet"}',
        rank=rank,
        world_size=world,
    )
    DefaultScope.get_instance('coupled_ranks', scope_name='mmpretrain')
    sharded_bank_saver._BYTES = 80  # a bank is sent in several parts
    result = dict(
        coupled={
            (name, shard): coupled(shard, options, rank, world)
            for name, options in CASES.items()
            for shard in (False, True)
        },
        uneven=uneven(rank),
        refused=refused(rank),
    )
    result['whole'] = trained(folder, shard=False)
    result['shards'] = trained(folder, shard=True)
    result['resumed'] = trained(
        folder, shard=True, resume=result['whole']['checkpoint']
    )
    result['refused_runs'] = refused_runs(folder, rank)
    torch.save(result, folder / f'{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
