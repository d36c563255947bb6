"""A network that cannot be timed is a row with the reason."""

import pytest
import torch
from mmpretrain.registry import MODELS

from fgc_mm.deploy import PlainForward
from fgc_mm.deploy.dynamic.calibrate import choose_single_threaded
from fgc_mm.deploy.timing import variants as timing
from fgc_mm.deploy.timing.measure import measure
from fgc_mm.deploy.timing.variants import BenchmarkVariant, BenchmarkVariants
from fgc_mm.errors import FGCError
from fgc_mm.runtime.library import has_bfloat16

NAN = float('nan')


@pytest.fixture
def built(classifier, pictures, tmp_path):
    model, settings = classifier()
    images = pictures(16)
    return BenchmarkVariants(model, settings, images, images, tmp_path, False)


def test_a_static_network_that_fails(pictures, tmp_path):
    """The units of ShuffleNetV2 split channels in halves of fixed width."""
    torch.manual_seed(0)
    backbone = dict(
        type='fgc_mm.GatedBackbone', gate=dict(type='fgc_mm.FBSGate'),
        backbone=dict(type='ShuffleNetV2', widen_factor=0.5),
    )  # fmt: skip
    model = MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=1024),
        )
    )
    model.eval()
    images = pictures(32, 2)
    variants = BenchmarkVariants(model, {}, images, None, tmp_path, False)
    (static,) = variants._static()
    assert static.name == 'static, eager' and static.run is None
    assert 'channels' in static.why_not
    dense = BenchmarkVariant('dense, eager', 'dense', PlainForward(model))
    rows = measure(model, [dense, static], images, 1, 1)['rows']
    assert [bool(row['why_not']) for row in rows] == [False, True]


def test_a_compaction_that_fails(built, monkeypatch):
    def refuse(*_):
        raise FGCError('it cannot be compacted; leave it.')

    monkeypatch.setattr(timing, 'compact', refuse)
    rows = list(built._compact())
    assert [row.name for row in rows] == [
        'compact, eager', 'compact and dynamic',
    ]  # fmt: skip
    assert all('cannot be compacted' in row.why_not for row in rows)


def test_a_variant_whose_logits_are_nan(built):
    def run(images):
        return torch.full((len(images), 10), NAN)

    row = built._row('x', 'dense', lambda: run, PlainForward(built._model))
    assert row.run is None and 'nan' in row.why_not


@pytest.mark.needs_kernel
def test_dense_rows_in_bfloat16_are_those_of_torch_and_the_runtime(built):
    names = [row.name for row in built._dense()]
    expected = ['folded, channels last', 'fgc_mm runtime']
    assert [name for name in names if name.endswith('bfloat16')] == [
        f'dense, {form}, bfloat16' for form in expected if has_bfloat16()
    ]


def test_the_dynamic_network_is_not_calibrated_on_the_timed_images(
    classifier, pictures, tmp_path, monkeypatch
):
    model, settings = classifier()
    timed, others = pictures(16), pictures(16, 12)
    given = []
    monkeypatch.setattr(
        timing, 'to_dynamic', lambda _, images, **__: given.append(images)
    )
    for calibration in (others, None):
        built = BenchmarkVariants(
            model, settings, timed, calibration, tmp_path, False
        )
        built._dynamic('dynamic', 'dynamic', model)
    assert torch.equal(given[0], others[:8])
    assert torch.equal(given[1], timed[:8])


@pytest.mark.parametrize(
    ('shared', 'alone', 'chosen'),
    [
        ({'a': 1, 'b': 9}, {'a': 2, 'b': 3}, ['b']),
        ({'a': 1, 'b': 2}, {'a': 2, 'b': 3}, []),
        ({'a': 3, 'b': 4}, {'a': 2, 'b': 3}, ['a', 'b']),
    ],
)
def test_steps_of_the_dense_network_get_the_faster_number_of_threads(
    shared, alone, chosen, monkeypatch
):
    class Program:
        names, now, single = ['a', 'b'], 0.0, ()

        def set_single_threaded(self, names):
            self.single = list(names)

        def seconds(self, image, repeats):
            return [
                (alone if name in self.single else shared)[name]
                for name in self.names
            ]

        def run(self, images, decisions):
            self.now += sum(self.seconds(images, 1))
            return [images]

    program = Program()
    monkeypatch.setattr('time.perf_counter', lambda: program.now)
    image = torch.zeros(1)
    found = choose_single_threaded(
        program,
        image,
        program.set_single_threaded,
        lambda: program.run(image, decisions=False),
    )
    assert found == program.single == chosen
