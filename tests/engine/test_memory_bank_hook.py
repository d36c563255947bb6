"""The banks in short real runs of a real config."""

import json

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

from fgc_mm.engine.memory_bank_hook import FGCMemoryBankHook
from fgc_mm.errors import FGCError

NAMES = ['layer3.1.conv1', 'layer3.2.conv1']
HOOK = 'custom_hooks.1'


@HOOKS.register_module(force=True)
class SpyHook(Hook):
    """Records the banks before a step writes them, and its batch."""

    priority = 'HIGH'  # before the hook that writes

    def before_train(self, runner):
        runner.steps = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        runner.at_start = copies(runner.model.gate_losses[2])

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        loss = runner.model.gate_losses[2]
        samples = data_batch['data_samples']
        step = dict(
            start=runner.at_start,
            unwritten=copies(loss),
            indices=[sample.sample_idx for sample in samples],
            pending=dict(loss._pending),
        )
        runner.steps.append(step)


def copies(loss):
    return {
        name: (banks.feature.rows.clone(), banks.gate.rows.clone())
        for name, banks in loss.banks.items()
    }


@pytest.fixture(scope='module')
def whole(digits, tmp_path_factory):
    """Four epochs in one run, recorded."""
    folder = tmp_path_factory.mktemp('whole')
    cfg = digits.tiny_config(folder, epochs=4)
    cfg.custom_hooks.append(dict(type='SpyHook'))
    runner = digits.start(cfg)
    runner.train()
    runner.folder = folder
    return runner


def train(digits, folder, epochs=1, **options):
    runner = digits.start(digits.tiny_config(folder, epochs, **options))
    runner.train()
    return runner


def refusal(digits, folder, **options):
    """The sentence with which a run does not start."""
    runner = digits.start(digits.tiny_config(folder, **options))
    with pytest.raises(FGCError) as caught:
        runner.train()
    text = str(caught.value)
    assert '\n' not in text
    return text


def test_banks_have_a_row_per_image(whole, digits):
    loss = digits.coupling(whole)
    assert list(loss.banks) == NAMES
    for banks in loss.banks.values():
        for bank in (banks.feature, banks.gate):
            assert bank.rows.shape == (40, 16)


def test_each_step_writes_its_own_rows_after_it(whole):
    for number, step in enumerate(whole.steps[:-1]):
        after = whole.steps[number + 1]['start']
        assert len(step['indices']) == 8
        for name in NAMES:
            rows = zip(
                step['start'][name], step['unwritten'][name], after[name]
            )
            for old, unwritten, new in rows:
                assert torch.equal(old, unwritten)
                moved = (old != new).any(1).nonzero().flatten().tolist()
                assert moved == sorted(step['indices'])


def test_the_rows_hold_the_images_vectors(whole):
    step, after = whole.steps[3], whole.steps[4]['start']
    for name in NAMES:
        batch = step['pending'][name]
        assert batch.indices.tolist() == step['indices']
        vectors = batch.features, batch.gates
        for old, new, values in zip(step['start'][name], after[name], vectors):
            rows = (old[batch.indices] + values) / 2
            want = nn.functional.normalize(rows, dim=1)
            torch.testing.assert_close(new[batch.indices], want)


def test_every_image_was_seen_in_every_epoch(whole):
    for epoch in range(4):
        steps = whole.steps[5 * epoch : 5 * epoch + 5]
        seen = [i for step in steps for i in step['indices']]
        assert sorted(seen) == list(range(40))


def test_losses_keep_ratio_and_agreement_are_logged(whole):
    (log,) = whole.folder.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    keys = {key for line in lines for key in line}
    losses = {f'loss_{x}' for x in ('cls', 'shaping', 'l0', 'coupling')}
    assert losses | {'loss', 'keep_ratio'} <= keys
    for name in NAMES:
        shares = [x.get(f'agreement_{name}') for x in lines]
        assert shares[0] is None and 0 <= shares[1] <= 1
    for line in lines:
        parts = sum(line[key] for key in losses)
        assert line['loss'] == pytest.approx(parts, rel=1e-3)


def test_a_checkpoint_holds_the_banks(whole, digits):
    path = whole.folder / 'epoch_4.pth'
    saved = torch.load(path, weights_only=False)['fgc_memory_banks']
    rows = digits.bank_rows(digits.coupling(whole))
    assert list(saved) == ['coupling'] and list(saved['coupling']) == NAMES
    for site, banks in saved['coupling'].items():
        for space, state in banks.items():
            assert torch.equal(state['rows'], rows[f'{site}.{space}'])


def test_two_epochs_and_two_more_start_where_the_first_stopped(
    whole, digits, tmp_path
):
    path = str(whole.folder / 'epoch_2.pth')
    cfg = digits.tiny_config(tmp_path, 4, resume=True, load_from=path)
    cfg.custom_hooks.append(dict(type='SpyHook'))
    runner = digits.start(cfg)
    runner.train()
    assert len(runner.steps) == 10
    restored, then = runner.steps[0]['start'], whole.steps[10]['start']
    for name in NAMES:
        assert all(map(torch.equal, restored[name], then[name]))
    assert runner.epoch == 4
    assert runner.model.progress.epoch == 3


def test_a_resumed_run_has_the_weights(whole, digits, tmp_path):
    path = str(whole.folder / 'epoch_4.pth')
    cfg = digits.tiny_config(tmp_path, 4, resume=True, load_from=path)
    runner = digits.start(cfg)
    runner.train()  # nothing is left to do
    assert digits.equal(digits.weights(runner), digits.weights(whole))
    one, other = digits.coupling(runner), digits.coupling(whole)
    assert digits.equal(digits.bank_rows(one), digits.bank_rows(other))


def first_banks(digits, folder, **options):
    cfg = digits.tiny_config(folder, 1, **options)
    cfg.custom_hooks.append(dict(type='SpyHook'))
    runner = digits.start(cfg)
    runner.train()
    return runner.steps[0]['start']


def test_load_from_takes_the_banks_too(whole, digits, tmp_path):
    path = str(whole.folder / 'epoch_2.pth')
    loaded = first_banks(digits, tmp_path, load_from=path)
    for name in NAMES:
        want = whole.steps[10]['start'][name]
        assert all(map(torch.equal, loaded[name], want))


def test_load_banks_false_leaves_them(whole, digits, tmp_path):
    path = str(whole.folder / 'epoch_2.pth')
    options = {'load_from': path, f'{HOOK}.load_banks': False}
    loaded = first_banks(digits, tmp_path, **options)
    for name in NAMES:
        then = whole.steps[10]['start'][name]
        assert not any(map(torch.equal, loaded[name], then))


def log_of(folder):
    return ''.join(p.read_text() for p in folder.glob('*/*.log'))


def test_a_resumed_run_without_saved_banks_warns(digits, tmp_path):
    options = {f'{HOOK}.save_banks': False}
    train(digits, tmp_path, 1, **options)
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert 'fgc_memory_banks' not in saved
    assert 'resumes without memory banks' not in log_of(tmp_path)
    train(digits, tmp_path, 2, resume=True)
    assert 'resumes without memory banks' in log_of(tmp_path)


def test_two_coupling_losses_resume_with_banks_of_their_own(digits, tmp_path):
    def run(folder, **options):
        cfg = digits.tiny_config(folder, 2, **options)
        late = cfg.model.gate_losses[2]
        early = dict(late, name='early', sites=['layer2.*'], num_neighbors=3)
        cfg.model.gate_losses.append(early)
        runner = digits.start(cfg)
        runner.train()
        return runner

    once = run(tmp_path / 'once')
    saved = str(tmp_path / 'once' / 'epoch_1.pth')
    resumed = run(tmp_path / 'resumed', resume=True, load_from=saved)
    rows = []
    for runner in (once, resumed):
        late, early = runner.model.gate_losses[2:]
        assert list(late.banks) == NAMES
        assert list(early.banks) == [f'layer2.{n}.conv1' for n in range(3)]
        rows.append([digits.bank_rows(late), digits.bank_rows(early)])
    assert all(map(digits.equal, *rows))
    assert digits.equal(digits.weights(once), digits.weights(resumed))


def test_banks_of_a_loss_with_another_name_are_missed(whole, digits, tmp_path):
    options = {
        'load_from': str(whole.folder / 'epoch_2.pth'),
        f'{digits.COUPLING}.name': 'other',
    }
    train(digits, tmp_path, 1, **options)
    said = 'memory banks of coupling, but not of other; those of other are'
    assert said in log_of(tmp_path)


def test_banks_of_another_size_are_refused(whole, digits, tmp_path):
    path = str(whole.folder / 'epoch_2.pth')
    options = {'train_dataloader.dataset.indices': 48, 'load_from': path}
    text = refusal(digits, tmp_path, resume=True, **options)
    assert '(40, 16)' in text and '(48, 16)' in text


def test_banks_of_other_sites_are_refused(whole, digits, tmp_path):
    path = str(whole.folder / 'epoch_2.pth')
    options = {f'{digits.COUPLING}.sites': 1, 'load_from': path}
    text = refusal(digits, tmp_path, **options)
    assert NAMES[0] in text and 'load_banks=False' in text


def wrapped(kind, inner):
    if kind == 'ConcatDataset':
        return dict(type=kind, datasets=[inner, inner])
    options = dict(
        RepeatDataset=dict(times=2),
        ClassBalancedDataset=dict(oversample_thr=0.1),
        KFoldDataset=dict(num_splits=2),
    )
    return dict(type=kind, dataset=inner, **options[kind])


@pytest.mark.parametrize(
    'kind',
    ['ConcatDataset', 'RepeatDataset', 'ClassBalancedDataset',
     'KFoldDataset'],
)  # fmt: skip
def test_a_data_set_in_another_is_refused(digits, tmp_path, kind):
    cfg = digits.tiny_config(tmp_path)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = wrapped(kind, inner)
    with pytest.raises(FGCError, match=rf'is a {kind}, .*`indices` option'):
        digits.start(cfg).train()


def test_a_subset_of_torch_is_refused(digits, tmp_path):
    runner = digits.start(digits.tiny_config(tmp_path))
    loader = runner.build_dataloader(runner._train_dataloader)
    part = torch.utils.data.Subset(loader.dataset, [1, 3])
    runner._train_dataloader = torch.utils.data.DataLoader(part)
    with pytest.raises(FGCError, match=r'is a Subset, .*unwrapped data set'):
        runner.train()


@pytest.mark.parametrize('kind', ['Mixup', 'CutMix'])
@pytest.mark.parametrize('where', ['train_cfg', 'data_preprocessor'])
def test_mixed_images_are_refused(digits, tmp_path, kind, where):
    augments = dict(augments=dict(type=kind, alpha=0.5))
    path = 'model.train_cfg'
    if where == 'data_preprocessor':
        path = 'data_preprocessor.batch_augments'
    text = refusal(digits, tmp_path, **{path: augments})
    assert text.startswith(f'{kind} mixes images') and 'remove' in text


def test_a_pipeline_without_sample_idx_is_refused(digits, tmp_path):
    cfg = digits.tiny_config(tmp_path)
    pack = cfg.train_dataloader.dataset.pipeline[-1]
    pack.meta_keys = ('img_shape',)
    with pytest.raises(FGCError, match=r"add 'sample_idx' to meta_keys"):
        digits.start(cfg).train()
    assert not list(tmp_path.glob('*.pth'))


def test_more_neighbors_than_images_are_refused(digits, tmp_path):
    options = {f'{digits.COUPLING}.num_neighbors': 40}
    assert 'between 1 and 39' in refusal(digits, tmp_path, **options)


def test_a_hook_without_a_coupling_loss_is_refused(digits, tmp_path):
    cfg = digits.tiny_config(tmp_path)
    cfg.model.gate_losses.pop()
    with pytest.raises(FGCError, match=r'^GatedImageClassifier has no Feat'):
        digits.start(cfg).train()


def test_a_coupling_loss_without_the_hook_is_refused(digits, tmp_path):
    cfg = digits.tiny_config(tmp_path)
    cfg.custom_hooks.pop()
    with pytest.raises(FGCError, match=r"'fgc_mm\.FGCMemoryBankHook'"):
        digits.start(cfg).train()


def test_accumulated_gradients_write_every_batch(digits, tmp_path):
    options = {'optim_wrapper.accumulative_counts': 2}
    cfg = digits.tiny_config(tmp_path, 1, **options)
    cfg.custom_hooks.append(dict(type='SpyHook'))
    runner = digits.start(cfg)
    runner.train()
    last = copies(digits.coupling(runner))
    for name in NAMES:
        for start, end in zip(runner.steps[0]['start'][name], last[name]):
            assert (start != end).any(1).all()


def test_labels_come_from_the_training_set(digits, tmp_path):
    options = {
        f'{digits.COUPLING}.neighbor_source': 'label',
        f'{digits.COUPLING}.num_neighbors': 2,
        'train_dataloader.dataset.indices': 200,
        'train_dataloader.batch_size': 40,
    }
    runner = train(digits, tmp_path, 2, **options)
    dataset = runner.train_dataloader.dataset
    labels = [dataset.get_data_info(i)['gt_label'] for i in range(200)]
    assert digits.coupling(runner)._labels.labels.tolist() == labels


def test_labels_that_the_data_set_does_not_have(digits, tmp_path):
    options = {f'{digits.COUPLING}.neighbor_source': 'label'}
    runner = digits.start(digits.tiny_config(tmp_path, **options))
    runner._train_dataloader = torch.utils.data.DataLoader(torch.ones(9, 3))
    with pytest.raises(FGCError, match=r'Tensor has no get_gt_labels'):
        runner.train()


def test_an_ema_of_the_model_trains_along(digits, tmp_path):
    cfg = digits.tiny_config(tmp_path, 2)
    cfg.custom_hooks.append(dict(type='EMAHook'))
    runner = digits.start(cfg)
    runner.train()
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    key = 'backbone.gates.layer1-0-conv1.expand.weight'
    one = saved['state_dict'][key]
    assert not torch.equal(one, saved['ema_state_dict'][f'module.{key}'])


# two processes


def test_two_ranks_write_what_one_writes(two_ranks, digits):
    from fgc_mm.losses import FeatureGateCouplingLoss
    from fgc_mm.sites import GateSite

    torch.manual_seed(0)
    loss = FeatureGateCouplingLoss(sites=1, num_neighbors=2)
    loss.build_banks([GateSite('a', 'a', ('b',), 2, 3)], 9)
    values = torch.randn(2, 2, 3, 3)
    # the row that both ranks have (4) is written once, with rank 0's value
    indices = torch.tensor([1, 4, 6, 3, 0])
    features, gates = (
        torch.cat([values[0, space], values[1, space][[0, 2]]])
        for space in (0, 1)
    )
    loss.banks['a'].feature.update(indices, features)
    loss.banks['a'].gate.update(indices, gates)
    for result in two_ranks:
        assert digits.equal(result['written'], digits.bank_rows(loss))


def test_two_ranks_end_with_the_same_banks_and_weights(two_ranks, digits):
    one, other = (result['trained'] for result in two_ranks)
    assert one['random'][0] != one['random'][1]  # each rank drew its own
    assert digits.equal(one['banks'], other['banks'])
    assert digits.equal(one['weights'], other['weights'])
    assert one['progress'] == other['progress'] == 1


def test_the_checkpoint_of_two_ranks_holds_these_banks(two_ranks):
    for result in two_ranks:
        trained = result['trained']
        for site, spaces in trained['written'].items():
            for space, state in spaces.items():
                rows = trained['banks'][f'{site}.{space}']
                assert torch.equal(state['rows'], rows)
                assert rows.shape[0] == 41


def test_mixing_that_is_switched_on_is_refused(digits, tmp_path):
    cfg = digits.tiny_config(tmp_path, 3)
    switch = dict(
        action_epoch=2,
        batch_augments=dict(augments=[dict(type='Mixup', alpha=0.5)]),
    )
    cfg.custom_hooks.append(dict(type='SwitchRecipeHook', schedule=[switch]))
    with pytest.raises(FGCError, match='Mixup mixes images'):
        digits.start(cfg).train()


@pytest.mark.parametrize('name', ['agreement_interval', 'check_interval'])
def test_intervals_are_whole_numbers(name):
    with pytest.raises(FGCError, match=f"{name}='abc' of FGCMemoryBankHook"):
        FGCMemoryBankHook(**{name: 'abc'})
