"""One pruning ratio for methods of every kind."""

from pathlib import Path

import pytest
import torch

from fgc_mm.comparison.ratio_options import (
    density_for_ratio,
    drop_overridden,
    needs_planning,
    options_for_ratio,
)
from fgc_mm.deploy.loading import build_model
from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.config_options import override, read_options
from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import macs_per_image
from fgc_mm.functional.topk_mask import num_kept_channels

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
DIGITS = """
_base_ = ['{methods}/{base}.py']
model = dict(
    backbone=dict(gate=dict(_delete_=True, **{gate})),
    gate_losses=[{losses}],
)
"""


@pytest.fixture
def config(tmp_path):
    """The digits' BAS config with other gates and losses."""

    def load(gate, losses=''):
        file = tmp_path / 'config.py'
        file.write_text(
            DIGITS.format(
                methods=CONFIGS, base='bas_resnet20_digits', gate=gate,
                losses=losses,
            )
        )  # fmt: skip
        return load_config(str(file))

    return load


def asked(cfg, ratio):
    options = options_for_ratio(cfg, ratio)
    override(cfg, read_options(options))
    return cfg


def test_an_l0_loss_becomes_a_target_with_its_ramp():
    cfg = load_config(str(CONFIGS / 'bas_resnet20_digits.py'))
    ramp = cfg.model.gate_losses[1].loss_weight.copy()
    loss = asked(cfg, 0.4).model.gate_losses[1]
    assert loss.type == 'fgc_mm.MACsTargetLoss' and loss.pruning_ratio == 0.4
    assert loss.loss_weight == {**ramp, 'end_value': 100.0}
    built = build_model(cfg).gate_losses[1]
    assert built.ratios.ends == (0.4, 0.4)


def test_a_target_gets_the_ratio():
    path = CONFIGS / 'fgc_resnet20_digits_55.py'
    cfg = asked(load_config(str(path)), 0.3)
    (loss,) = (x for x in cfg.model.gate_losses if 'MACs' in x.type)
    assert loss.pruning_ratio == 0.3


def test_a_target_that_falls_ends_at_the_ratio():
    path = CONFIGS / 'fgcplus_resnet20_folder16_55.py'
    cfg = load_config(str(path))
    before = cfg.model.gate_losses[0].pruning_ratio.copy()
    after = asked(cfg, 0.3).model.gate_losses[0].pruning_ratio
    assert after == {**before, 'end_value': 0.3}


def test_a_density_of_groups_costs_the_ratio(config):
    gate = "dict(type='fgc_mm.FBSGate', density=0.5, group=4)"
    cfg = asked(config(gate), 0.45)
    density = cfg.model.backbone.gate.density
    table = build_model(cfg).macs_table((3, 8, 8))
    masks = []
    for channels in table.channels:
        groups = -int(-density * channels / 4 // 1)
        masks.append((torch.arange(channels) < 4 * groups)[None])
    share = macs_per_image(table, masks).item() / table.base()
    assert 1 - share == pytest.approx(0.45, abs=0.05)


@pytest.mark.parametrize(
    ('gate', 'setting'),
    [
        ("dict(type='fgc_mm.FBSGate', density=dict(start_value=1.0, "
         'end_value=0.9, begin=0, end=5))', 'density'),
        ("dict(type='fgc_mm.ManiDPGate', keep=0.5)", 'keep'),
    ],
)  # fmt: skip
def test_a_density_costs_the_ratio(config, gate, setting):
    cfg = asked(config(gate), 0.45)
    value = cfg.model.backbone.gate[setting]
    density = value['end_value'] if isinstance(value, dict) else value
    table = build_model(cfg).macs_table((3, 8, 8))

    def miss(density):
        masks = []
        for channels in table.channels:
            mask = torch.zeros(1, channels)
            mask[:, : -int(-density * channels // 1)] = 1
            masks.append(mask)
        share = macs_per_image(table, masks).item() / table.base()
        return abs(1 - share - 0.45)

    assert miss(density) < 0.03
    step = 1 / max(table.channels)
    for number in range(1, max(table.channels) + 1):
        assert miss(density) <= miss(number * step) + 1e-9


@pytest.mark.parametrize('ratio', [0.2, 0.45, 0.6])
def test_a_falling_density_closes_nothing_in_its_last_epochs(config, ratio):
    cfg = config("dict(type='fgc_mm.ManiDPGate', keep=0.5)")
    table = build_model(cfg).macs_table((3, 8, 8))
    density, margin = (
        density_for_ratio(table, ratio),
        0.4 / max(table.channels),
    )
    for channels in table.channels:
        kept = num_kept_channels(density, channels)
        assert num_kept_channels(density + margin, channels) == kept
        assert num_kept_channels(density - margin, channels) == kept


def test_a_density_that_is_out_of_reach(config):
    cfg = config("dict(type='fgc_mm.FBSGate', density=0.5)")
    table = build_model(cfg).macs_table((3, 8, 8))
    with pytest.raises(FGCError, match='out of reach'):
        density_for_ratio(table, 0.99)


def test_the_ratio_of_ftwt_is_planned_unless_the_row_sets_it(config):
    losses = "dict(type='fgc_mm.MaskPredictionLoss', ratio=0.8)"
    cfg = config("dict(type='fgc_mm.FTWTGate')", losses)
    assert options_for_ratio(cfg, 0.5) == ()
    assert needs_planning(cfg, ())
    assert not needs_planning(cfg, ('model.gate_losses.0.ratio=0.7',))


def test_a_gate_without_a_ratio_is_refused(config):
    cfg = config("dict(type='fgc_mm.BinaryConcreteGate')")
    with pytest.raises(FGCError, match='add a MACsTargetLoss'):
        options_for_ratio(cfg, 0.5)
    assert options_for_ratio(config("dict(type='fgc_mm.OpenGate')"), 0.5) == ()
    dense = CONFIGS / 'dense_resnet20_digits.py'
    assert options_for_ratio(load_config(str(dense)), 0.5) == ()


def test_the_gate_opens_as_many_as_were_counted(config, monkeypatch):
    """1 / 24 written as 0.0416667 opens 2 of 24 channels."""
    cfg = config("dict(type='fgc_mm.FBSGate', density=0.5)")
    matching = 'fgc_mm.comparison.ratio_options'
    monkeypatch.setattr(f'{matching}._table', lambda _: None)
    for count in range(1, 25):
        monkeypatch.setattr(
            f'{matching}.density_for_ratio',
            lambda *_, density=count / 24: density,
        )
        kept = asked(cfg, 0.5).model.backbone.gate.density
        assert num_kept_channels(kept, 24) == count


def test_a_ratio_that_a_row_sets_is_kept():
    asked = ('model.gate_losses.1.pruning_ratio=0.5', 'model.b.c=1')
    own = ('model.gate_losses.1.pruning_ratio=0.3', 'model.b.c=2')
    assert drop_overridden(asked, own) == ('model.b.c=1',)
    ramp = ('model.backbone.gate.density.end_value=0.5',)
    assert drop_overridden(ramp, ramp) == ()
    assert drop_overridden(asked, ()) == asked


def test_an_l0_loss_with_more_than_a_weight_is_refused(config):
    gate = "dict(type='fgc_mm.BinaryConcreteGate')"
    more = ", name='b'"
    loss = "dict(type='fgc_mm.L0Loss', loss_weight=0.4{})"
    assert len(options_for_ratio(config(gate, loss.format(more)), 0.5)) == 3
    more = ", reduction='sites'"
    with pytest.raises(FGCError, match='L0Loss with reduction, which'):
        options_for_ratio(config(gate, loss.format(more)), 0.5)
