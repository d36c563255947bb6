"""Per-site scalars and histograms in MMEngine's backends."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop
from mmengine.visualization import Visualizer
from PIL import Image
from torch.utils.data import DataLoader

from fgc_mm.engine import gate_statistics_hook as module
from fgc_mm.engine.gate_histograms import add_histograms
from fgc_mm.engine.gate_statistics_hook import GateStatisticsHook
from fgc_mm.errors import FGCError
from fgc_mm.functional import MACsTable


@pytest.fixture(scope='module')
def run(digits, tmp_path_factory):
    """Two epochs, validated, with the local backend."""
    folder = tmp_path_factory.mktemp('statistics')
    cfg = digits.tiny_config(
        folder, validate=True,
        **{'train_cfg.val_interval': 1,
           'val_dataloader.dataset.indices': 20,
           'val_dataloader.batch_size': 8},
    )  # fmt: skip
    cfg.custom_hooks.append(dict(type='fgc_mm.GateStatisticsHook'))
    runner = digits.start(cfg)
    runner.train()
    (data,) = folder.glob('*/vis_data')
    lines = (data / 'scalars.json').read_text().splitlines()
    runner.lines = [json.loads(line) for line in lines]
    runner.pictures = sorted((data / 'vis_image').iterdir())
    return runner


def found_masks(runner):
    """(images, channels) of the validation set, from the model itself."""
    masks = []
    with torch.no_grad():
        for batch in runner.val_dataloader:
            masks += [s.gate_masks for s in runner.model.val_step(batch)]
    return torch.stack(masks)


def test_scalars_are_those_of_the_last_validation(run):
    lines = [x for x in run.lines if any('gates/' in key for key in x)]
    assert [line['step'] for line in lines] == [1, 2]
    sites = run.model.backbone.sites
    assert len(lines[-1]) == 1 + 3 * len(sites)
    rates = found_masks(run).float().mean(0)
    parts = rates.split([site.channels for site in sites])
    for site, rate in zip(sites, parts):
        want = dict(
            keep_ratio=rate.mean(),
            never_open=(rate == 0).float().mean(),
            always_open=(rate == 1).float().mean(),
        )
        for name, value in want.items():
            got = lines[-1][f'gates/{name}/{site.name}']
            assert got == pytest.approx(value.item(), abs=1e-6)


def test_the_local_backend_gets_a_picture_per_validation(run):
    names = [path.name for path in run.pictures]
    assert names == [f'gates_firing_rate_{i}.png' for i in (1, 2)]
    picture = np.asarray(Image.open(run.pictures[0]))
    assert picture.ndim == 3 and len(np.unique(picture)) > 2


class Backend:
    """A backend with the experiment of another tool."""

    def __init__(self, **experiment):
        self.experiment = SimpleNamespace(**experiment)
        self.images = []

    def add_image(self, name, picture, step):
        self.images.append((name, step))


def test_tensorboard_and_wandb_get_histograms():
    board, logged = [], []
    backends = dict(
        tensorboard=Backend(add_histogram=lambda *x: board.append(x)),
        wandb=Backend(
            Histogram=list, log=lambda x, commit: logged.append(x)
        ),
        local=Backend(),
    )  # fmt: skip
    visualizer = Visualizer.__new__(Visualizer)
    visualizer._vis_backends = backends
    rates = dict(conv1=torch.tensor([0.0, 1.0]), conv2=torch.tensor([0.5]))
    add_histograms(visualizer, 'gates/x', rates, 3)
    names = [(name, step) for name, _, step in board]
    assert names == [('gates/x/conv1', 3), ('gates/x/conv2', 3)]
    assert board[0][1] is rates['conv1']
    assert logged == [{'gates/x/conv1': [0, 1], 'gates/x/conv2': [0.5]}]
    assert backends['local'].images == [('gates_x', 3)]
    assert not backends['tensorboard'].images


@pytest.mark.parametrize('rank', [0, 1])
def test_a_rank_without_images_takes_part(rank, monkeypatch):
    """Rank 1 has both images: else the other ranks would wait for it."""
    table = MACsTable((), ('a', 'b'), (1, 2))
    samples = [
        dict(gate_masks=torch.tensor(row), macs_table=table)
        for row in ([True, False, True], [True, False, False])
    ]
    hooks = GateStatisticsHook(), GateStatisticsHook()
    alone = SimpleNamespace(_train_loop=None)
    hooks[1]._after_iter(alone, 0, outputs=samples, mode='val')
    states = [(h._table, h._opened, h._images) for h in hooks]
    calls, scalars = [], {}

    def gather(own):
        calls.append(own)
        return states

    monkeypatch.setattr(module, 'all_gather_object', gather)
    monkeypatch.setattr(module, 'is_main_process', lambda: rank == 0)
    logged = SimpleNamespace(add_scalars=lambda x, step: scalars.update(x))
    runner = SimpleNamespace(_train_loop=None, visualizer=logged)
    hooks[rank].histograms = False
    hooks[rank]._after_epoch(runner, mode='val')
    assert calls == [states[rank]]
    wanted = {'a': 1, 'b': 0.25} if rank == 0 else {}
    found = {k: scalars.get(f'gates/keep_ratio/{k}') for k in wanted}
    assert found == wanted and bool(scalars) == (rank == 0)


@pytest.mark.parametrize(
    ('loop', 'ends', 'want'),
    [
        (dict(max_epochs=6), range(1, 7), [1, 3, 5]),
        # begins at 4, and the last one is of no whole interval
        (dict(max_epochs=13, val_begin=3, val_interval=4),
         (4, 8, 12), [4, 12]),
    ],
)  # fmt: skip
def test_every_second_validation_also_if_resumed(loop, ends, want):
    """The number of a validation follows from the epoch alone."""
    runner = SimpleNamespace(
        _train_loop=SimpleNamespace(**{'val_begin': 1, 'val_interval': 1,
                                       **loop}),
    )  # fmt: skip
    logged = []
    for epoch in ends:
        hook = GateStatisticsHook(interval=2)  # that of a new process
        runner.epoch = epoch
        if hook._is_chosen(runner):
            logged.append(epoch)
        else:
            hook.after_val_iter(runner, 0, outputs=[{}])  # not even read
            assert hook._opened is None
    assert logged == want


@pytest.mark.parametrize('rank', [0, 1])
def test_images_that_a_sampler_repeats_are_left_out(rank, monkeypatch):
    monkeypatch.setattr(module, 'get_world_size', lambda: 2)
    monkeypatch.setattr(module, 'get_rank', lambda: rank)
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=range(3)))
    runner = SimpleNamespace(test_loop=loop)
    hook = GateStatisticsHook()
    hook.before_test_epoch(runner)
    table = MACsTable((), ('a',), (1,))
    # 0, 2 and 1, 0: image 0 is repeated to fill rank 1
    for opened in (True, True):
        sample = dict(gate_masks=torch.tensor([opened]), macs_table=table)
        hook.after_test_iter(runner, 0, outputs=[sample])
    assert hook._images == hook._opened.item() == (2 if rank == 0 else 1)


def test_what_is_refused():
    with pytest.raises(FGCError, match='interval=0 of GateStatisticsHook'):
        GateStatisticsHook(interval=0)
    with pytest.raises(FGCError, match='has no gate_masks'):
        GateStatisticsHook().after_test_iter(None, 0, outputs=[{}])


@pytest.mark.parametrize(
    ('options', 'logged'),
    [
        (dict(max_epochs=25, val_interval=10), [10, 25]),
        (dict(max_epochs=3, val_interval=5), [3]),
        (dict(max_epochs=40, val_interval=10, val_begin=11), [20, 40]),
        (
            dict(max_epochs=12, val_interval=5, dynamic_intervals=[(9, 1)]),
            [5, 9, 11],
        ),
    ],
)
def test_every_second_validation_is_logged(options, logged):
    """MMEngine also validates at the end, and may change the interval."""
    hook = GateStatisticsHook(interval=2)
    loader = DataLoader(range(2))
    runner = SimpleNamespace(
        val_loop=SimpleNamespace(),
        model=None,
        visualizer=SimpleNamespace(),
        call_hook=lambda *_, **__: None,
    )
    loop = EpochBasedTrainLoop(runner, loader, **options)
    loop.run_epoch = lambda: setattr(loop, '_epoch', loop._epoch + 1)
    chosen = []

    def validate():
        seen = SimpleNamespace(_train_loop=loop, epoch=loop.epoch)
        if hook._is_chosen(seen):
            chosen.append(loop.epoch)

    runner.val_loop.run = validate
    loop.run()
    assert chosen == logged
