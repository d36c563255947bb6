"""Errors of the coupling loss."""

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import FeatureGateCouplingLoss, GateBatch


def make(given, length=12, **options):
    options = dict(dict(num_neighbors=3, warmup_epochs=0), **options)
    loss = FeatureGateCouplingLoss(loss_weight=1.0, **options)
    loss.build_banks(given.sites(), length)
    return loss


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(preset='code'), r"preset='code' .* reference, paper\.$"),
        (dict(form='log'), r"form='log' .* log_sum, sum_log\.$"),
        (dict(bank_init='zero'), r"bank_init='zero' .* uniform, unit\.$"),
        (dict(gate_vector='mask'), r"gate_vector='mask' .* logits, probs"),
        (dict(neighbor_source='x'), r"='x' .* feature, gate, label\.$"),
    ],
)
def test_an_unknown_switch_lists_the_choices(options, message):
    with pytest.raises(FGCError, match=message):
        FeatureGateCouplingLoss(**options)


@pytest.mark.parametrize('k', [0, -1, 12, 200])
def test_k_is_below_the_number_of_images(given, k):
    with pytest.raises(
        FGCError, match=rf'={k} must be a whole number between 1 and 11'
    ):
        make(given, num_neighbors=k)


@pytest.mark.parametrize('sites', [0, 3, -1])
def test_a_number_of_sites_is_one_that_there_is(given, sites):
    with pytest.raises(FGCError, match=rf'sites={sites} .* 1 and 2, the'):
        make(given, sites=sites)


def test_a_pattern_lists_the_sites(given):
    with pytest.raises(FGCError, match=r"'x\*' .* among early, late\.$"):
        make(given, sites=['x*'])
    with pytest.raises(FGCError, match=r"write \['early'\]\.$"):
        make(given, sites='early')
    with pytest.raises(FGCError, match='not a list of patterns'):
        make(given, sites=[])


def test_without_the_hook_there_are_no_banks(given):
    loss = FeatureGateCouplingLoss(loss_weight=1.0)
    with pytest.raises(FGCError, match=r"'fgc_mm\.FGCMemoryBankHook'"):
        loss(GateBatch(given.records(), given.samples([1, 2, 3, 4])))


def test_banks_that_are_not_written(given):
    loss, samples = make(given), given.samples([1, 2, 3, 4])
    batch = GateBatch(given.records(), samples)
    loss(batch)
    with pytest.raises(FGCError, match=r"'fgc_mm\.FGCMemoryBankHook'"):
        loss(batch)
    loss.write_banks()
    loss(batch)


@pytest.mark.parametrize('samples', [None, []])
def test_no_samples(given, samples):
    with pytest.raises(FGCError, match=r"'sample_idx' to meta_keys of Pack"):
        make(given)(GateBatch(given.records(), samples))


def test_one_sample_without_an_index(given):
    samples = given.samples([1, 2, 3, None])
    with pytest.raises(FGCError, match=r'^an image has no sample_idx'):
        make(given)(GateBatch(given.records(), samples))


@pytest.mark.parametrize('wrong', [12, -1])
def test_an_index_outside_names_itself(given, wrong):
    loss = make(given)
    with pytest.raises(FGCError, match=rf'^sample_idx {wrong} .*12 rows'):
        loss(GateBatch(given.records(), given.samples([1, 2, wrong, 3])))
    loss(GateBatch(given.records(), given.samples([1, 2, 0, 11])))


def test_records_without_activations(given):
    with pytest.raises(FGCError, match=r'keep_activation=True'):
        make(given)(
            GateBatch(given.records(keep=False), given.samples(range(4)))
        )


def test_warm_up_needs_epochs(given):
    loss = make(given, warmup_epochs=2)
    with pytest.raises(FGCError, match=r'^warmup_epochs=2 .*Progress'):
        loss(GateBatch(given.records(), given.samples(range(4))))
    by_iteration = FeatureGateCouplingLoss(
        num_neighbors=3,
        loss_weight=dict(start_value=0, end_value=1, end=9, by_epoch=False),
    )
    by_iteration.build_banks(given.sites(), 12)
    with pytest.raises(FGCError, match=r'by_epoch=True'):
        by_iteration(
            GateBatch(
                given.records(), given.samples(range(4)), Progress(3, 20)
            )
        )


def test_a_small_class_is_named(given):
    loss = FeatureGateCouplingLoss(num_neighbors=3, neighbor_source='label')
    with pytest.raises(FGCError, match=r'a class has 2 images'):
        loss.build_banks(given.sites(), 6, torch.tensor([0, 0, 0, 0, 1, 1]))


@pytest.mark.parametrize('what', ['activation', 'logits'])
def test_values_that_are_not_finite_are_not_written(given, what):
    loss, records = make(given), given.records()
    with torch.no_grad():
        getattr(records[0], what)[2] = float('nan')
    loss(GateBatch(records, given.samples([4, 5, 6, 7])))
    before = {
        name: (b.feature.rows.clone(), b.gate.rows.clone())
        for name, b in loss.banks.items()
    }
    with pytest.raises(FGCError, match=r'sample_idx 6 is not finite'):
        loss.write_banks()
    for name, banks in loss.banks.items():
        assert torch.equal(banks.feature.rows, before[name][0])
        assert torch.equal(banks.gate.rows, before[name][1])
