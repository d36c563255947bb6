"""Several processes couple as one does, with whole or sharded banks."""

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from fgc_mm.functional import nearest_neighbors

RUNS = Path(__file__).parents[1] / 'runs'


@pytest.fixture(scope='module')
def script(digits):
    """The processes' script, to run as one process here."""
    spec = importlib.util.spec_from_file_location(
        'coupled_ranks', RUNS / 'coupled_ranks.py'
    )
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'digits_run', digits)
        spec.loader.exec_module(module)
    return module


NAMES = ['log_sum', 'paper', 'many', 'warming_up', 'gate_shared',
         'bfloat16', 'float16']  # fmt: skip


@pytest.mark.parametrize('shard', [False, True], ids=['whole', 'sharded'])
@pytest.mark.parametrize('name', NAMES)
def test_ranks_couple_as_one_process(coupled_ranks, script, name, shard):
    alone = script.coupled(False, script.CASES[name])
    together = [ranks['coupled'][name, shard] for ranks in coupled_ranks]
    half = 'float16' in name
    near = dict(atol=0.02, rtol=0.02) if half else dict(atol=2e-5, rtol=1e-4)
    for step, want in enumerate(alone):
        steps = [rank[step] for rank in together]
        loss = torch.stack([x['loss'] for x in steps]).mean()
        torch.testing.assert_close(loss, want['loss'], **near)
        for one in steps:
            torch.testing.assert_close(one['grads'], want['grads'], **near)
        torch.testing.assert_close(steps[0]['banks'], want['banks'], **near)
        for site in 'ab' if not half else ():
            found = torch.cat([x['found'][site] for x in steps])
            assert torch.equal(found, want['found'][site])
            shares = torch.stack([x['agreement'][site] for x in steps])
            torch.testing.assert_close(shares.mean(), want['agreement'][site])


def test_the_cases_are_those_of_the_script(script):
    assert list(script.CASES) == NAMES


def test_all_steps_move_something(script):
    """Otherwise equal results would prove little."""
    steps = script.coupled(False, {})
    for one, other in pairwise(steps):
        assert one['loss'] != other['loss']
        rows = one['banks']['a.gate'] != other['banks']['a.gate']
        assert 10 < rows.any(1).sum() < 20
    assert all(x['grads']['layer.weight'].abs().sum() > 0.01 for x in steps)


def test_memory_falls_with_the_number_of_ranks(coupled_ranks, script):
    world = len(coupled_ranks)
    held = [x['coupled']['log_sum', True][0]['held'] for x in coupled_ranks]
    assert sum(rows for rows, _ in held) == script.LENGTH
    assert max(rows for rows, _ in held) == -(-script.LENGTH // world)
    for ranks in coupled_ranks:
        assert ranks['coupled']['log_sum', False][0]['held'] == (43, 4)


def test_ranks_with_different_numbers_of_queries(coupled_ranks):
    for ranks in coupled_ranks:
        said = ranks['uneven']
        table, queries = said['table'], said['queries']
        for k, found in said['found'].items():
            # whole numbers: ties in plenty, and exact
            want = nearest_neighbors(queries, table, k, said['own'])
            assert torch.equal(found, want)
        for value, grad, rows, k, tau, form in (
            ('value', 'grad', table, 5, 0.1, 'log_sum'),
            ('hot', 'hot_grad', 30 * table, 1, 0.07, 'sum_log'),
        ):
            wide = queries.double().requires_grad_()
            scores = wide @ rows.double().T / tau
            share = scores.log_softmax(1).gather(1, said['found'][k])
            if form == 'log_sum':
                want = -(0.01 + share.exp().sum(1)).log().mean()
            else:
                want = -share.sum(1).mean()
            want.backward()
            want = want.detach().to(said[value].dtype)
            # scores of some thousands in float32
            slack = 0.05 if value == 'hot' else 1e-5
            near = dict(rtol=1e-4, atol=slack)
            torch.testing.assert_close(said[value], want, **near)
            torch.testing.assert_close(
                said[grad].double(), wide.grad, rtol=1e-4, atol=slack
            )


def test_every_rank_reports_that_one_is_different(coupled_ranks):
    for ranks in coupled_ranks:
        said = ranks['refused']
        assert said.pop('alike') is None and said.pop('same') is None
        starts = dict(
            longer='rank 1 has 10 training images and rank 0 has 9, but',
            shorter='rank 1 has 8 training images and rank 0 has 9, but',
            gate='the gate bank of b on rank 1 differs from that on rank 0,',
            feature='the feature bank of a on rank 1 differs from that on '
            'rank 0,',
        )
        assert said.keys() == starts.keys()
        for kind, start in starts.items():
            assert said[kind].startswith(start) and '\n' not in said[kind]


def test_a_run_ends_where_one_rank_is_different(coupled_ranks):
    for ranks in coupled_ranks:
        said = ranks['refused_runs']
        assert 'rank 1 has 42 training images and rank 0 has' in said['data']
        assert said['bank'].startswith('the feature bank of layer3.1.conv1 on')


def test_a_run_with_shards_is_the_run_without(coupled_ranks):
    near = dict(atol=1e-4, rtol=1e-3)
    for ranks in coupled_ranks:
        whole, shards = ranks['whole'], ranks['shards']
        torch.testing.assert_close(shards['weights'], whole['weights'], **near)
        torch.testing.assert_close(shards['banks'], whole['banks'], **near)


def test_a_checkpoint_of_shards_is_one_of_whole_banks(coupled_ranks):
    whole, shards = (
        torch.load(coupled_ranks[0][kind]['checkpoint'], weights_only=False)[
            'fgc_memory_banks'
        ]['coupling']
        for kind in ('whole', 'shards')
    )
    assert torch.equal(
        shards['layer3.2.conv1']['gate']['rows'],
        coupled_ranks[0]['shards']['banks']['layer3.2.conv1']['gate']['rows'],
    )
    near = dict(atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(shards, whole, **near)
    for banks in shards.values():
        assert all(state['rows'].shape == (41, 16) for state in banks.values())


def test_whole_banks_are_resumed_as_shards(coupled_ranks):
    before = coupled_ranks[0]['whole']['banks']
    after = coupled_ranks[0]['resumed']['banks']
    assert len(before) == 2
    for site, spaces in before.items():
        for space, state in spaces.items():
            assert torch.equal(state['rows'], after[site][space]['rows'])


def test_shards_are_resumed_by_one_process(coupled_ranks, digits, tmp_path):
    path = coupled_ranks[0]['shards']['checkpoint']
    cfg = digits.tiny_config(
        tmp_path,
        2,
        **{
            'resume': True,
            'load_from': path,
            'train_dataloader.dataset.indices': 41,
        },
    )
    runner = digits.start(cfg)
    runner.train()  # nothing is left to do
    saved = coupled_ranks[0]['shards']['banks']
    rows = digits.bank_rows(digits.coupling(runner))
    assert len(rows) == 4
    for name, own in rows.items():
        site, _, space = name.rpartition('.')
        assert torch.equal(own, saved[site][space]['rows'])
