"""Feature-gate coupling against loops over images, rows and neighbours."""

import math

import pytest
import torch

from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import FeatureGateCouplingLoss, GateBatch

LENGTH, INDICES = 12, [3, 0, 11, 7]
LATE = Progress(99, 0)


def make(given, length=LENGTH, seed=0, labels=None, channels=None, **options):
    options = dict(dict(num_neighbors=3, loss_weight=1.0), **options)
    loss = FeatureGateCouplingLoss(**options)
    torch.manual_seed(seed)
    loss.build_banks(given.sites(channels), length, labels)
    return loss


def batch_of(given, records, progress=LATE):
    return GateBatch(records, given.samples(INDICES), progress)


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def nearest(query, rows, own, k):
    """The k best rows by inner product, without the image's own."""
    others = [j for j in range(len(rows)) if j != own]
    return sorted(others, key=lambda j: -dot(query, rows[j]))[:k]


def pooled(maps):
    """(N, C) means, one number at a time."""
    return [
        [sum(sum(row) for row in c) / 12 for c in image]
        for image in maps.tolist()
    ]


def contrast(gate, rows, positives, tau, form, eps):
    scores = [math.exp(dot(gate, row) / tau) for row in rows]
    shares = [scores[j] / sum(scores) for j in positives]
    if form == 'log_sum':
        return -math.log(eps + sum(shares))
    return -sum(math.log(share) for share in shares)


def positives_of(loss, records, name, i, k):
    """What a site's neighbours of an image are, by the loss's source."""
    record = next(r for r in records if r.site.name == name)
    banks = loss.banks[name]
    if loss.neighbor_source == 'gate':
        vector = getattr(record, loss.gate_vector)[i].tolist()
        return nearest(vector, banks.gate.rows.tolist(), INDICES[i], k)
    query = pooled(record.activation)[i]
    return nearest(query, banks.feature.rows.tolist(), INDICES[i], k)


def naive(loss, records, k=3, progress=LATE):
    """Sum over coupled sites of the mean over the batch."""
    coupled = [r for r in records if r.site.name in loss.banks]
    warm = progress.epoch < loss.switches.warmup_epochs
    total = 0.0
    for record in coupled:
        name = record.site.name
        source = coupled[-1].site.name if loss.share_neighbors else name
        for i, own in enumerate(INDICES):
            found = [own] if loss.switches.include_self or warm else []
            if not warm:
                found += positives_of(loss, records, source, i, k)
            total += contrast(
                getattr(record, loss.gate_vector)[i].tolist(),
                loss.banks[name].gate.rows.tolist(),
                found,
                loss.temperature,
                loss.switches.form,
                loss.switches.eps,
            ) / len(INDICES)
    return total


SWITCHES = [
    dict(),
    dict(preset='paper'),
    dict(form='sum_log'),
    dict(include_self=False),
    dict(eps=0.1),
    dict(preset='paper', include_self=True),
    dict(preset='paper', form='log_sum', normalize_rows=True),
    dict(preset='paper', form='log_sum', eps=0.01),
    dict(normalize_rows=False, bank_init='unit'),
    dict(gate_vector='probs'),
    dict(gate_vector='probs', neighbor_source='gate'),
    dict(neighbor_source='gate'),
    dict(share_neighbors=True),
    dict(share_neighbors=True, neighbor_source='gate'),
    dict(num_neighbors=1, temperature=0.5),
    dict(num_neighbors=11),
    dict(sites=1),
    dict(sites=['early']),
]


@pytest.mark.parametrize('options', SWITCHES, ids=str)
def test_against_loops(given, options):
    channels = dict(early=4, late=4) if 'share' in str(options) else None
    loss = make(given, channels=channels, **options)
    records = given.records(channels=channels)
    value = loss(batch_of(given, records))
    want = naive(loss, records, options.get('num_neighbors', 3))
    assert value.item() == pytest.approx(want, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize('options', SWITCHES[:6], ids=str)
def test_over_several_steps_that_write_the_banks(given, options):
    loss = make(given, momentum=0.9, **options)
    for step in range(3):
        records = given.records(seed=step)
        before = naive(loss, records)
        rows = {
            name: (b.feature.rows.tolist(), b.gate.rows.tolist())
            for name, b in loss.banks.items()
        }
        value = loss(batch_of(given, records))
        assert value.item() == pytest.approx(before, rel=1e-4)
        loss.write_banks()
        for record in records:
            check_rows(loss, record, rows[record.site.name])


def check_rows(loss, record, old):
    """Each bank is the old one, moved a tenth towards the new vectors."""
    banks = loss.banks[record.site.name]
    new = pooled(record.activation), record.logits.tolist()
    for bank, rows, vectors in zip((banks.feature, banks.gate), old, new):
        for index, vector in zip(INDICES, vectors, strict=True):
            row = [0.9 * a + 0.1 * b for a, b in zip(rows[index], vector)]
            unit = (
                math.sqrt(dot(row, row)) if loss.switches.normalize_rows else 1
            )
            rows[index] = [x / unit for x in row]
        torch.testing.assert_close(bank.rows, torch.tensor(rows))


def test_banks_are_read_before_they_are_written(given):
    loss, records = make(given), given.records()
    first = loss(batch_of(given, records))
    rows = loss.banks['late'].gate.rows.clone()
    loss._pending.clear()
    again = loss(batch_of(given, records))
    assert torch.equal(first, again)
    assert torch.equal(loss.banks['late'].gate.rows, rows)
    loss.write_banks()
    changed = (loss.banks['late'].gate.rows != rows).any(1)
    assert changed.nonzero().flatten().tolist() == sorted(INDICES)
    assert not torch.equal(loss(batch_of(given, records)), first)


def test_the_loss_survives_writing_before_backward(given):
    one, two = make(given), make(given)
    records, same = given.records(), given.records()
    one(batch_of(given, records)).backward()
    value = two(batch_of(given, same))
    two.write_banks()
    value.backward()
    for a, b in zip(records, same, strict=True):
        assert torch.equal(a.logits.grad, b.logits.grad)


@pytest.mark.parametrize('source', ['feature', 'gate'])
def test_gradients_reach_gates_only(given, source):
    loss, records = make(given, neighbor_source=source), given.records()
    loss(batch_of(given, records)).backward()
    for record in records:
        assert record.activation.grad is None
        assert record.logits.grad.abs().sum(1).min() > 0
    for banks in loss.banks.values():
        assert not banks.gate.rows.requires_grad
    for batch in loss._pending.values():
        assert not batch.features.requires_grad
        assert not batch.gates.requires_grad


def test_the_gradient_is_that_of_the_formula_as_written(given):
    loss, records = make(given, sites=1), given.records()
    loss(batch_of(given, records)).backward()
    record = records[-1]
    logits = record.logits.detach().requires_grad_()
    shares = (logits @ loss.banks['late'].gate.rows.T / 0.07).softmax(1)
    total = 0
    for i, own in enumerate(INDICES):
        found = [own, *positives_of(loss, records, 'late', i, 3)]
        total -= (1e-7 + shares[i, found].sum()).log() / 4
    total.backward()
    torch.testing.assert_close(record.logits.grad, logits.grad)


@pytest.mark.parametrize(
    ('weight', 'first'),
    [
        (1.0, 0),
        (dict(start_value=0.0, end_value=1.0, begin=5, end=5), 5),
        (dict(start_value=0.0, end_value=1.0, begin=5, end=7), 6),
    ],
)
def test_warm_up_counts_coupled_epochs(given, weight, first):
    loss = make(given, warmup_epochs=3, loss_weight=weight, sites=1)
    self_only = {}
    for epoch in range(first, first + 5):
        now = Progress(epoch, 0)
        loss(batch_of(given, given.records(), now))
        shapes = [rows.shape[1] for rows in loss._positives(now)]
        self_only[epoch - first] = shapes == [1]
        loss._pending.clear()
    assert self_only == {0: True, 1: True, 2: True, 3: False, 4: False}


def test_warming_up_the_image_itself_is_the_positive(given):
    loss, now = (
        make(given, include_self=False, warmup_epochs=5),
        Progress(4, 0),
    )
    records = given.records()
    value = loss(batch_of(given, records, now))
    want = naive(loss, records, progress=now)
    assert value.item() == pytest.approx(want, rel=1e-4)


def test_before_its_epoch_it_needs_nothing(given):
    weight = dict(start_value=0.0, end_value=1.0, begin=5, end=5)
    loss = FeatureGateCouplingLoss(loss_weight=weight)
    batch = GateBatch(given.records(keep=False), progress=Progress(4, 0))
    assert loss(batch).item() == 0


def test_presets_differ_where_the_paper_and_its_code_do():
    loss = FeatureGateCouplingLoss
    names = 'form', 'include_self', 'warmup_epochs', 'normalize_rows'
    names += 'bank_init', 'eps'
    chosen = {
        preset: [getattr(loss(preset=preset).switches, name) for name in names]
        for preset in ('reference', 'paper')
    }
    assert chosen == dict(
        reference=['log_sum', True, 20, True, 'uniform', 1e-7],
        paper=['sum_log', False, 0, False, 'unit', 0.0],
    )
    default = loss()
    assert default.switches.form == 'log_sum' and default.num_neighbors == 200
    assert (default.temperature, default.momentum) == (0.07, 0.5)
    assert default.loss_weight.end_value == 0.003


def test_bank_switches_reach_the_banks(given):
    loss = make(given, momentum=0.25, preset='paper', normalize_rows=True)
    for site in given.sites():
        banks = loss.banks[site.name]
        for bank in (banks.feature, banks.gate):
            assert bank.momentum == 0.25 and bank.normalize
            assert bank.rows.shape == (LENGTH, site.channels)
            norms = bank.rows.norm(dim=1)
            torch.testing.assert_close(norms, torch.ones(LENGTH))
        assert not torch.equal(banks.feature.rows, banks.gate.rows)


@pytest.mark.parametrize('share', [True, False])
def test_label_neighbors_share_the_class(given, share):
    labels = torch.tensor([0, 1] * 6)
    loss = make(
        given, labels=labels, neighbor_source='label',
        share_neighbors=share, num_neighbors=4,
    )  # fmt: skip
    value = loss(batch_of(given, given.records()))
    assert value.isfinite() and value > 0
    torch.manual_seed(0)
    early, late = loss._positives(LATE)
    for own, line in zip(INDICES, early.tolist(), strict=True):
        assert line[0] == own and len(set(line)) == 5
        assert {labels[j].item() for j in line} == {labels[own].item()}
    assert torch.equal(early, late) == share


def test_half_precision_records_work(given):
    loss, records = make(given), given.records()
    exact = loss(batch_of(given, records))
    loss._pending.clear()
    half = [
        type(r)(r.site, r.activation.bfloat16(), r.logits.bfloat16(),
                r.probs, r.mask)
        for r in records
    ]  # fmt: skip
    value = loss(batch_of(given, half))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact, rtol=0.1, atol=0.1)
    loss.write_banks()
    assert loss.banks['late'].gate.rows.dtype == torch.float32


def test_no_matrix_of_images_by_rows(given, largest_made):
    length, count = 40_000, 512
    loss = make(given, length=length, num_neighbors=5, sites=1)
    records = given.records(count=count)
    with largest_made as seen:
        loss(GateBatch(records, given.samples(range(count)), LATE)).backward()
    assert length <= seen.elements < count * length / 2


def test_agreement_is_the_share_of_common_neighbors(given):
    loss, records = make(given, num_neighbors=4), given.records()
    loss(batch_of(given, records))
    shares = loss.agreement(queries=3)
    assert list(shares) == ['early', 'late']
    for record in records:
        banks, common = loss.banks[record.site.name], 0
        for i, own in enumerate(INDICES[:3]):
            features, gates = (
                set(nearest(query, bank.rows.tolist(), own, 4))
                for query, bank in (
                    (pooled(record.activation)[i], banks.feature),
                    (record.logits[i].tolist(), banks.gate),
                )
            )
            common += len(features & gates)
        want = pytest.approx(common / 12)
        assert shares[record.site.name].item() == want
    loss.write_banks()
    assert loss.agreement() == {}


def test_nothing_of_the_banks_is_in_the_state_dict(given):
    loss = make(given)
    assert not loss.state_dict() and not list(loss.buffers())
