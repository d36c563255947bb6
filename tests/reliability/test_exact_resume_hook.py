"""Interrupted and resumed runs equal an uninterrupted one, bit by bit."""

import os
import random
import re
import signal
import time

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from fgc_mm.reliability.checkpoint_reader import read_checkpoint
from fgc_mm.reliability.random_states import (
    mixed_seed,
    random_states,
    restore_random_states,
    seeded,
)
from fgc_mm.reliability.seeded_batches import SeededBatch, SeededBatches

WORKERS = dict(
    train_dataloader__num_workers=2,
    train_dataloader__persistent_workers=True,
    val_dataloader__num_workers=1,
    val_dataloader__persistent_workers=True,
)


def draw():
    return [
        random.random(), random.gauss(0, 1), np.random.rand(),
        np.random.randn(), *torch.rand(3).tolist(),
    ]  # fmt: skip


def test_states_put_every_generator_back(tmp_path):
    random.gauss(0, 1), np.random.randn()  # each keeps a second number
    states = random_states()
    want = draw()
    draw()
    torch.save(dict(states=states), tmp_path / 'a.pth')
    restore_random_states(read_checkpoint(tmp_path / 'a.pth')['states'])
    assert draw() == want


def test_within_seeded_nothing_else_moves():
    states = random_states()
    want = draw()
    restore_random_states(states)
    with seeded(7):
        one = draw()
    assert draw() == want
    with seeded(7):
        assert draw() == one
    assert one != want


def test_neighbouring_numbers_give_other_seeds():
    places = [(s, r, e, n) for s in (0, 1) for r in (0, 1)
              for e in range(9) for n in range(99)]  # fmt: skip
    assert len({mixed_seed(*place) for place in places}) == len(places)


def batches(**attributes):
    inner = torch.utils.data.BatchSampler(range(10), 3, drop_last=True)
    outer = SeededBatches(inner, seed=5, rank=0)
    vars(outer).update(attributes)
    return outer


def test_skipping_leaves_the_seeds_of_the_others():
    whole = list(batches())
    assert [list(batch) for batch in whole] == [[0, 1, 2], [3, 4, 5],
                                                [6, 7, 8]]  # fmt: skip
    late = batches(skip=1)
    rest = list(late)
    assert [b.seed for b in rest] == [b.seed for b in whole[1:]]
    following = list(late)  # the next epoch is whole, and another one
    assert len(following) == 3
    assert {b.seed for b in following}.isdisjoint(b.seed for b in whole)
    assert len(late) == 3 and late.batch_size == 3


def test_every_epoch_and_rank_has_other_seeds():
    kinds = dict(a={}, b=dict(epoch=1), c=dict(rank=1), d=dict(seed=6))
    seeds = {b.seed for kind in kinds.values() for b in batches(**kind)}
    assert len(seeds) == 12


def test_a_batch_reaches_a_worker_without_being_loaded():
    before = torch.get_rng_state()
    kind, arguments = SeededBatch([4, 2], 9).__reduce__()
    assert torch.equal(torch.get_rng_state(), before)
    assert list(kind(*arguments)) == [4, 2] and kind(*arguments).seed == 9


class Stream(IterableDataset):
    """Eight vectors that can only be read in order."""

    def __iter__(self):
        return iter(torch.rand(8, 2, generator=torch.manual_seed(0)))

    def __len__(self):
        return 8


class Mean(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, inputs, mode='tensor'):
        return dict(loss=(self.weight * torch.stack(list(inputs))).sum())


def stream_run(folder, steps, resume=False):
    """A run of iterations over a stream, with a checkpoint at its end."""
    out = folder.parent / 'out'
    runner = Runner(
        Mean(), str(folder),
        train_dataloader=DataLoader(
            Stream(), batch_size=2, collate_fn=lambda rows: dict(inputs=rows)
        ),
        train_cfg=dict(by_epoch=False, max_iters=steps),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(
                type='fgc_mm.SafeCheckpointHook', by_epoch=False, interval=2,
                out_dir=str(out),
            ),
            exact_resume=dict(type='fgc_mm.ExactResumeHook'),
        ),
        log_processor=dict(by_epoch=False),
        resume=resume, default_scope='mmengine',
        experiment_name=f'{folder.name}-{steps}-{resume}',
    )  # fmt: skip
    runner.train()
    return runner.model.weight.tolist()


def test_a_stream_of_images(tmp_path):
    folder, own = tmp_path / 'run', tmp_path / 'out' / 'run'
    want = stream_run(tmp_path / 'whole', 4)
    stream_run(folder, 2)
    # what a killed run leaves in the folder of its checkpoints
    (own / '.iter_4.pth.7.part').write_bytes(b'half')
    assert stream_run(folder, 4, resume=True) == want
    assert {path.name for path in own.iterdir()} >= {'iter_4.pth'}
    assert not list(own.glob('.*.part'))


def test_killed_and_resumed(real, uninterrupted, tmp_path):
    process = real.start(tmp_path)
    real.wait_for(process, 3, random.Random().randint(1, 9))
    time.sleep(random.uniform(0, 0.2))
    os.killpg(process.pid, signal.SIGKILL)
    assert real.end(process)[1] == -signal.SIGKILL
    text = real.run(tmp_path, '--resume')
    assert re.search(r'resumed epoch: [23], ', text)
    assert 'Epoch(train) [1]' not in text
    got = real.result(tmp_path)
    assert real.differences(got, real.result(uninterrupted)) == []


def test_killed_with_workers_and_another_seed(real, uninterrupted, tmp_path):
    """Workers change nothing; nor does the seed that the second run draws."""
    process = real.start(tmp_path, **WORKERS)
    real.wait_for(process, 3, 4)
    process.kill()  # its workers exit some seconds later
    real.end(process)
    real.run(tmp_path, '--resume', **WORKERS, randomness__seed=None)
    got = real.result(tmp_path)
    assert real.differences(got, real.result(uninterrupted)) == []


def test_without_the_hook_they_differ(real, uninterrupted, tmp_path):
    """The comparison finds a difference where there is one."""
    # so that only the hook's own state is lost
    state = torch.load(uninterrupted / 'epoch_3.pth', weights_only=False)
    assert state.pop('fgc_random_states')
    torch.save(state, tmp_path / 'epoch_3.pth')
    text = real.run(
        tmp_path, '--resume', str(tmp_path / 'epoch_3.pth'),
        default_hooks__exact_resume__require_states=False,
    )  # fmt: skip
    assert 'The checkpoint has no random states' in text
    got = real.result(tmp_path)
    assert real.differences(got, real.result(uninterrupted)) != []


def test_stops_in_the_middle_of_an_epoch(real, uninterrupted, tmp_path):
    process = real.start(tmp_path, **WORKERS)
    real.wait_for(process, 2, 4)
    # all processes of the run, as Slurm does it
    os.killpg(process.pid, signal.SIGTERM)
    text, code = real.end(process)
    assert code == 75 and 'Traceback' not in text, text
    assert 'Stopped by SIGTERM: saving interrupted.pth' in text
    saved = read_checkpoint(tmp_path / 'interrupted.pth')
    assert saved['meta']['epoch'] == 1
    assert 10 < saved['meta']['iter'] < 20  # not at an end of an epoch
    text = real.run(tmp_path, '--resume', **WORKERS)
    assert f'resumed epoch: 1, iter: {saved["meta"]["iter"]}' in text
    assert not (tmp_path / 'interrupted.pth').exists()
    got = real.result(tmp_path)
    assert real.differences(got, real.result(uninterrupted)) == []


@pytest.mark.parametrize('how', ['resumed', 'stopped'])
def test_two_ranks_resume_with_what_each_would_have_drawn(two_ranks, how):
    """From the end of an epoch, and from within one."""
    for result in two_ranks:
        whole, again = result['trained'], result[how]
        assert again.get('code', 75) == 75
        assert whole['random'] == again['random']
        for part in ('weights', 'banks'):
            assert whole[part].keys() == again[part].keys()
            for key, value in whole[part].items():
                assert torch.equal(value, again[part][key]), key


def test_two_ranks_augment_with_seeds_of_their_own(two_ranks):
    one, other = (set(result['seeds']) for result in two_ranks)
    assert len(one) == len(other) == 5 and one.isdisjoint(other)


def test_two_ranks_draw_noise_of_their_own_with_equal_seeds(two_ranks):
    for result in two_ranks:
        one, other = result['exact_resume']['draws']
        assert not torch.equal(one, other)
