"""Images held in memory, augmented by the batch."""

import pickle
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from fgc_mm.datasets import InMemoryImages
from fgc_mm.datasets.in_memory import crop_and_flip
from fgc_mm.errors import FGCError
from fgc_mm.registry import DATASETS
from fgc_mm.reliability.random_states import seeded
from fgc_mm.reliability.seeded_batches import SeededBatch

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'
PACK = [dict(type='PackInputs')]


class Source(torch.utils.data.Dataset):
    """Packed images of 5 x 4 pixels, no two alike."""

    metainfo: ClassVar[dict] = dict(classes=('a', 'b'))

    def __init__(self, change=lambda index, pixels: pixels):
        self.change, self.read = change, 0

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.read += 1
        draw = np.random.RandomState(index).randint(1, 256, (3, 5, 4))
        pixels = torch.from_numpy(draw.astype(np.uint8))
        sample = DataSample(metainfo=dict(sample_idx=index))
        return dict(
            inputs=self.change(index, pixels),
            data_samples=sample.set_gt_label(index % 2),
        )


def naive(image, row, column, flip, padding):
    """One (C, H, W) image: pad, cut, mirror; pixel by pixel."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            from_y = y + row - padding
            at = width - 1 - x if flip else x
            from_x = at + column - padding
            if 0 <= from_y < height and 0 <= from_x < width:
                out[:, y, x] = image[:, from_y, from_x]
    return out


@pytest.mark.parametrize('padding', [0, 2])
def test_crop_and_flip_against_loops(padding):
    images = torch.stack([Source()[i]['inputs'] for i in range(6)])
    draws = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    got = crop_and_flip(images.permute(0, 2, 3, 1), draws, padding, 0.5)
    size = 2 * padding + 1
    for image, draw, out in zip(images, draws.tolist(), got, strict=True):
        row, column = int(draw[0] * size), int(draw[1] * size)
        want = naive(image, row, column, draw[2] < 0.5, padding)
        assert torch.equal(out.permute(2, 0, 1), want)


def test_every_offset_comes_up_equally_often():
    images = torch.zeros(9000, 1, 1, 1, dtype=torch.uint8) + 1
    draws = torch.rand(9000, 3, generator=torch.Generator().manual_seed(0))
    inside = crop_and_flip(images, draws, 1, 0.5).float().mean()
    assert abs(inside.item() - 1 / 9) < 0.02


def test_items_are_the_sources_own():
    source = Source()
    images = InMemoryImages(source)
    for index, item in enumerate(images.__getitems__(range(6))):
        want = source[index]
        assert torch.equal(item['inputs'], want['inputs'])
        assert item['data_samples'].sample_idx == index
        label = item['data_samples'].gt_label
        assert torch.equal(label, want['data_samples'].gt_label)
    assert images.metainfo == Source.metainfo and len(images) == 6


def test_every_image_is_read_once():
    source = Source()
    images = InMemoryImages(source, padding=1, flip=0.5)
    images[0]
    read = source.read
    for _ in range(3):
        images.__getitems__(range(6))
    assert source.read == read == 6 + 9  # and nine looks at the first


def test_a_sample_is_not_shared_between_batches():
    images = InMemoryImages(Source())
    images[2]['data_samples'].set_pred_label(1)
    assert 'pred_label' not in images[2]['data_samples']


def test_a_seeded_batch_has_the_same_pixels_and_leaves_the_generator():
    images = InMemoryImages(Source(), padding=2, flip=0.5)
    images[0]
    before = torch.get_rng_state()
    batches = [images.__getitems__(SeededBatch(range(6), 7)) for _ in '12']
    assert torch.equal(torch.get_rng_state(), before)
    for one, two in zip(*batches, strict=True):
        assert torch.equal(one['inputs'], two['inputs'])
    with seeded(8):
        other = images.__getitems__(SeededBatch(range(6), 8))
    assert any(
        not torch.equal(a['inputs'], b['inputs'])
        for a, b in zip(batches[0], other, strict=True)
    )


def test_a_batch_on_a_device_takes_few_operations_and_no_wait():
    """Counted on tensors without data."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from operation_counter import OperationCounter
    finally:
        sys.path.remove(str(BENCHMARKS))
    images = InMemoryImages(Source(), padding=2, flip=0.5, device='meta')
    images[0]
    with OperationCounter('meta') as counter:
        items = images.__getitems__(SeededBatch([3, 1, 3, 5], 7))
        torch.stack([item['inputs'] for item in items])
        torch.cat([item['data_samples'].gt_label for item in items])
    assert counter.operations.total() <= 20
    assert not counter.reads.total() and not counter.copies
    for item, index in zip(items, [3, 1, 3, 5], strict=True):
        assert item['inputs'].shape == (3, 5, 4)
        sample = item['data_samples']
        assert sample.sample_idx == index and sample.gt_label.is_meta
        assert sample.gt_label.shape == (1,)


def test_draws_are_those_of_one_image_after_the_other():
    images = InMemoryImages(Source(), padding=2, flip=0.5)
    held = torch.stack([Source()[i]['inputs'] for i in (4, 0, 2)])
    with seeded(5):
        draws = torch.stack([torch.rand(3) for _ in range(3)])
    want = crop_and_flip(held.permute(0, 2, 3, 1), draws, 2, 0.5)
    got = images.__getitems__(SeededBatch([4, 0, 2], 5))
    for item, one in zip(got, want, strict=True):
        assert torch.equal(item['inputs'], one.permute(2, 0, 1))


def test_a_device_that_is_none():
    with pytest.raises(FGCError, match="device='gpu' of InMemoryImages is no"):
        InMemoryImages(Source(), device='gpu')[0]
    with pytest.raises(
        FGCError, match=r"'cuda:99' .* does not exist on this machine"
    ):
        InMemoryImages(Source(), device='cuda:99')[0]
    loader = torch.utils.data.DataLoader(
        InMemoryImages(Source(), device='meta'), num_workers=1
    )
    with pytest.raises(FGCError, match='set num_workers=0'):
        next(iter(loader))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_the_same_pixels_on_a_gpu():
    both = [
        InMemoryImages(Source(), padding=2, flip=0.5, device=device)
        for device in ('cpu', 'auto')
    ]
    one, other = (x.__getitems__(SeededBatch(range(6), 7)) for x in both)
    for a, b in zip(one, other, strict=True):
        assert b['inputs'].is_cuda and b['data_samples'].gt_label.is_cuda
        assert torch.equal(a['inputs'], b['inputs'].cpu())


def test_it_travels_to_a_worker():
    images = pickle.loads(pickle.dumps(InMemoryImages(Source.__new__(Source))))
    assert isinstance(images.source, Source)


def test_from_a_config_of_digits():
    images = DATASETS.build(
        dict(
            type='fgc_mm.InMemoryImages',
            dataset=dict(type='fgc_mm.Digits', split='test', pipeline=PACK),
            padding=1,
            flip=0.5,
        )
    )
    assert len(images) == 360 and len(images.get_gt_labels()) == 360
    item = images[5]
    assert item['inputs'].shape == (3, 8, 8)
    assert item['data_samples'].gt_label.item() == images.get_gt_labels()[5]


@pytest.mark.parametrize(
    'options', [dict(padding=-1), dict(padding=1.5), dict(flip=1.5)], ids=str
)
def test_options_outside_their_range(options):
    with pytest.raises(FGCError, match=r'must be a whole number of pixels'):
        InMemoryImages(Source(), **options)


def noisy(_, pixels):
    return torch.randint_like(pixels, 256)


def growing(index, pixels):
    return pixels[:, :, : 4 - index % 2].contiguous()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (noisy, r'different pixels for image 0 each .* padding and flip'),
        (growing, r'image 1 has the shape \(3, 5, 3\) .*Resize'),
        (lambda i, x: x.float(), r'image 0 .* torch.float32, .*PackInputs'),
    ],
    ids=['random', 'sizes', 'floats'],
)
def test_sources_that_cannot_be_held(change, message):
    with pytest.raises(FGCError, match=message):
        InMemoryImages(Source(change))[0]


def test_the_pipeline_may_be_the_wrappers():
    """Where mmpretrain's inferencers look for it; the pixels are the same."""
    steps = [dict(type='PackInputs')]
    source = dict(type='fgc_mm.Digits', split='test', indices=3)
    inner = InMemoryImages(dict(source, pipeline=steps))
    outer = InMemoryImages(source, pipeline=steps)
    assert torch.equal(inner[2]['inputs'], outer[2]['inputs'])
    with pytest.raises(FGCError, match='a pipeline of its own'):
        InMemoryImages(dict(source, pipeline=steps), pipeline=steps)


def test_another_pipeline_reads_the_images_again():
    """As SwitchRecipeHook sets it."""
    source = Source()
    source.pipeline = 'first'
    images = InMemoryImages(source)
    before = images[2]['inputs']
    assert images.pipeline == 'first'
    source.change = lambda index, pixels: 255 - pixels
    images.pipeline = 'second'
    assert source.pipeline == 'second'
    assert torch.equal(images[2]['inputs'], 255 - before)


def test_a_subset_reads_the_images_again():
    digits = dict(type='fgc_mm.Digits', split='test',
                  pipeline=[dict(type='PackInputs')])  # fmt: skip
    images, whole = InMemoryImages(digits), InMemoryImages(digits)
    assert len(images[0]) == 2  # read
    images.get_subset_([5, 6, 7])
    assert len(images) == 3
    for number, image in enumerate(images.__getitems__(range(3))):
        wanted = whole[5 + number]
        assert torch.equal(image['inputs'], wanted['inputs'])
        label = image['data_samples'].gt_label
        assert label == wanted['data_samples'].gt_label
