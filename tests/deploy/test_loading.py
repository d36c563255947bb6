"""Images of a config's data loaders, for calibration and analysis."""

from mmengine.config import Config

from fgc_mm.datasets import InMemoryImages
from fgc_mm.deploy.loading import build_dataset


def images_in_memory(split, **augmentation):
    pipeline = [dict(type='PackInputs')]
    digits = dict(type='fgc_mm.Digits', split=split, indices=4)
    dataset = dict(
        type='fgc_mm.InMemoryImages',
        dataset=dict(**digits, pipeline=pipeline),
        **augmentation,
    )
    return dict(batch_size=2, dataset=dataset)


def test_training_images_are_not_augmented():
    cfg = Config(
        dict(
            train_dataloader=images_in_memory('train', padding=3, flip=1.0),
            test_dataloader=images_in_memory('test'),
        )
    )
    got = build_dataset(cfg, 'train')
    plain = InMemoryImages(got.source)
    assert got.padding == got.flip == 0
    for augmented, image in zip(
        got.__getitems__(range(4)), plain.__getitems__(range(4)), strict=True
    ):
        assert (augmented['inputs'] == image['inputs']).all()


def test_every_augmentation_is_an_option_that_can_be_switched_off():
    names = InMemoryImages.AUGMENTATIONS
    source = InMemoryImages(images_in_memory('test')['dataset']['dataset'])
    off = InMemoryImages(source.source, **dict.fromkeys(names, 0))
    assert not any(getattr(off, name) for name in names)
