"""Training with half types, gradient accumulation and memory formats."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import convert_sync_batchnorm
from torch._dynamo.utils import counters

from fgc_mm.cli.launch import join_processes
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone

spec = importlib.util.spec_from_file_location(
    'digits_run', Path(__file__).parents[1] / 'runs' / 'digits_run.py'
)
digits_run = sys.modules['digits_run'] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(digits_run)


def one_step(runner, images=None):
    """The logged losses of one batch, and the gradients of all parameters."""
    batch = next(iter(runner.train_dataloader))
    model = runner.model
    data = model.data_preprocessor(batch, training=True)
    if images is not None:
        data['inputs'] = images(data['inputs'])
    model.zero_grad()
    torch.manual_seed(0)
    total, logged = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    loss = digits_run.coupling(runner)
    before = digits_run.bank_rows(loss)
    loss.write_banks()
    for name, banks in loss.banks.items():  # as without it
        for space in ('feature', 'gate'):
            getattr(banks, space).rows.copy_(before[f'{name}.{space}'])
    return logged, {n: p.grad for n, p in model.named_parameters()}


@pytest.fixture
def runner(tmp_path):
    runner = digits_run.start(digits_run.tiny_config(tmp_path, epochs=2))
    runner.train()  # past the warm-up, banks written
    return runner


@pytest.mark.parametrize('half', [torch.bfloat16, torch.float16])
def test_autocast_keeps_coupling_and_banks_in_float32(runner, half):
    whole, _ = one_step(runner)
    with torch.autocast('cpu', dtype=half):
        logged, grads = one_step(runner)
    for name, value in logged.items():
        assert value.dtype == torch.float32, name
        assert value.item() == pytest.approx(whole[name].item(), rel=0.2), name
    assert all(g.isfinite().all() for g in grads.values() if g is not None)
    for banks in digits_run.coupling(runner).banks.values():
        assert banks.gate.rows.dtype == torch.float32


def test_scores_that_half_types_cannot_hold_do_not_overflow(runner):
    loss = digits_run.coupling(runner)
    for gate in runner.model.backbone.gates.values():
        gate.expand.weight.data.mul_(1e3)  # / 0.07: beyond float16
    with torch.autocast('cpu', dtype=torch.float16):
        logged, _ = one_step(runner)
    assert logged[f'loss_{loss.name}'].isfinite()


def test_channels_last_gives_the_same(runner):
    plain, grads = one_step(runner)
    runner.model.to(memory_format=torch.channels_last)
    last, again = one_step(
        runner, lambda x: x.to(memory_format=torch.channels_last)
    )
    for name, value in plain.items():
        torch.testing.assert_close(last[name], value, rtol=1e-4, atol=1e-5)
    for name, grad in grads.items():
        torch.testing.assert_close(again[name], grad, rtol=1e-2, atol=1e-4)


def test_accumulated_gradients_write_every_batch(tmp_path):
    rows = []
    for counts in (1, 5):
        cfg = digits_run.tiny_config(
            tmp_path / str(counts),
            epochs=1,
            **{'optim_wrapper.accumulative_counts': counts},
        )
        runner = digits_run.start(cfg)
        before = {n: p.clone() for n, p in runner.model.named_parameters()}
        runner.train()
        banks = digits_run.coupling(runner).banks
        rows.append([b.feature.rows.clone() for b in banks.values()])
        moved = [
            not torch.equal(p, before[n])
            for n, p in runner.model.named_parameters()
        ]
        assert all(moved)
    # five batches of an epoch, one update at its end: the rows are those of
    # the first weights, and every image has been written in both
    assert all(not torch.equal(a, b) for a, b in zip(*rows))
    for per_run in rows:
        assert all((r.norm(dim=1) - 1).abs().max() < 1e-5 for r in per_run)


def test_a_coupling_weight_of_zero_leaves_no_parameter_unused(tmp_path):
    cfg = digits_run.tiny_config(
        tmp_path, epochs=1, **{f'{digits_run.COUPLING}.loss_weight': 0.0}
    )
    runner = digits_run.start(cfg)
    runner.train()
    _, grads = one_step(runner)
    assert [name for name, grad in grads.items() if grad is None] == []


FOUR_BLOCKS = dict(
    type='ResNet_CIFAR', depth=18, num_stages=2, strides=(1, 2),
    dilations=(1, 1), out_indices=(1,), base_channels=8, stem_channels=8,
)  # fmt: skip


@pytest.mark.parametrize('group', [1, 4])
def test_compiled_it_trains_the_same_in_one_graph(tmp_path, group):
    """Dynamo's part; what inductor makes of the graph is inductor's."""
    results = []
    for options in ({}, {'compile': dict(backend='eager')}):
        torch._dynamo.reset()
        counters.clear()
        folder = tmp_path / str(len(results))
        options.update(
            {'validate': True, 'val_dataloader.dataset.indices': 20}
        )
        cfg = digits_run.tiny_config(folder, epochs=2, **options)
        cfg.model.backbone.backbone = FOUR_BLOCKS  # a second for each
        cfg.model.backbone.gate.group = group
        cfg.custom_hooks.append(dict(type='EMAHook'))
        runner = digits_run.start(cfg)
        runner.train()
        rows = digits_run.bank_rows(digits_run.coupling(runner))
        results.append(digits_run.weights(runner) | rows)
    assert digits_run.equal(*results)
    assert not counters['graph_break']
    # one for training and one for validation
    assert counters['stats']['unique_graphs'] == 2


def test_compile_takes_a_dict_or_a_bool(tmp_path):
    cfg = digits_run.tiny_config(tmp_path, compile='inductor')
    with pytest.raises(FGCError, match="compile='inductor' is neither"):
        digits_run.start(cfg).train()


@pytest.mark.parametrize(
    ('kind', 'said'),
    [('mmcv', 'mmcv-lite does not have'), ('torch', 'no GPU')],
)
def test_sync_bn_that_cannot_be_had_is_refused(monkeypatch, kind, said):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(FGCError, match=said):
        join_processes(Config(dict(sync_bn=kind)), 'pytorch')


def test_sync_bn_keeps_inner_gates_and_refuses_residual_ones():
    """It replaces the norms, and their hooks are lost."""
    network = dict(type='fgc_mm.CifarResNet', base_channels=4)
    gate = dict(type='fgc_mm.BinaryConcreteGate')
    images = torch.randn(2, 3, 32, 32)
    inner = GatedBackbone(network, gate).eval()
    for port in inner.gates.values():
        torch.nn.init.normal_(port.expand.bias)
    with torch.no_grad():
        before = inner(images)
        inner = convert_sync_batchnorm(inner).eval()
        assert any(
            isinstance(m, torch.nn.SyncBatchNorm) for m in inner.modules()
        )
        torch.testing.assert_close(inner(images), before)
        sites = dict(type='auto', residual=True)
        residual = GatedBackbone(network, gate, sites).eval()
        residual(images)
        with pytest.raises(FGCError, match='did not mask its output'):
            convert_sync_batchnorm(residual).eval()(images)


def test_no_parameter_is_unused_where_ranks_look_for_none(two_ranks):
    """DDP would refuse the second step."""
    for result in two_ranks:
        assert result['weightless'] == 5
