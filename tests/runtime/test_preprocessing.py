"""The runtime's numbers are those of the test pipeline, to the bit."""

import struct
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmpretrain.registry import MODELS
from PIL import Image

from fgc_mm.deploy.bundle.preprocessing_settings import preprocessing_settings
from fgc_mm.errors import FGCError
from fgc_mm.runtime.picture import read_picture
from fgc_mm.runtime.preprocessing import preprocess
from fgc_mm.runtime.resizing import CV2, PILLOW, resize

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def picture(height, width, seed=0):
    """Smooth colours, as photographs have."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    smooth = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 2)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype('u1')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Picture files of several kinds and shapes."""
    folder = tmp_path_factory.mktemp('pictures')
    wide, tall = picture(75, 120), picture(110, 61, 1)
    cv2.imwrite(str(folder / 'wide.jpg'), wide)
    cv2.imwrite(str(folder / 'tall.png'), tall)
    cv2.imwrite(str(folder / 'grey.jpg'), wide[:, :, 0])
    alpha = np.dstack([tall, tall[:, :, :1]])
    cv2.imwrite(str(folder / 'alpha.png'), alpha)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(wide).save(folder / 'turned.jpg', exif=exif)
    Image.fromarray(wide).convert('P').save(folder / 'palette.png')
    deep = wide[:, :, 0].astype(np.uint16) << 8
    cv2.imwrite(str(folder / 'deep.png'), deep)
    return sorted(folder.iterdir())


def config(pipeline, dataset='CustomDataset', **preprocessor):
    options = dict(mean=MEAN, std=STD, to_rgb=True)
    options.update(preprocessor)
    return Config(
        dict(
            test_dataloader=dict(
                dataset=dict(type=dataset, pipeline=pipeline)
            ),
            data_preprocessor=dict(type='ClsDataPreprocessor', **options),
        )
    )


class Network(torch.nn.Module):
    """Something that has a data preprocessor."""

    def __init__(self, cfg):
        super().__init__()
        self.data_preprocessor = MODELS.build(cfg.data_preprocessor)


def theirs(cfg, file):
    pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
    data = pipeline(dict(img_path=str(file)))
    model = Network(cfg)
    return model.data_preprocessor(pseudo_collate([data]))['inputs'].numpy()


def ours(cfg, file, size):
    settings = preprocessing_settings(cfg, Network(cfg), size)
    pixels = read_picture(
        file, settings['channel_order'] == 'grey', settings['bits']
    )
    return preprocess(pixels, settings)[None]


def resized(**options):
    return dict(dict(type='ResizeEdge', scale=64, edge='short'), **options)


def cropped(size):
    return dict(type='CenterCrop', crop_size=size)


EDGE, CROP = resized(), cropped(48)
HEIGHT = resized(edge='height', interpolation='nearest')
WIDTH = resized(edge='width', backend='pillow', interpolation='bicubic')
WITHIN = dict(
    type='Resize', scale=(200, 90), keep_ratio=True, backend='pillow'
)
PIPELINES = {
    'edge': [EDGE, CROP],
    'long edge': [resized(edge='long'), cropped(31)],
    'height': [HEIGHT, cropped((33, 48))],
    'width': [WIDTH, cropped(36)],
    'both': [dict(type='Resize', scale=(40, 24))],
    'square': [dict(type='Resize', scale=224, interpolation='bicubic')],
    'within': [WITHIN, CROP],
}


@pytest.mark.parametrize('name', PIPELINES)
@pytest.mark.parametrize('loader', ['LoadImageFromFile', 'fgc_mm.LoadImage'])
def test_equals_the_test_pipeline(files, name, loader):
    steps = [dict(type=loader), *PIPELINES[name], dict(type='PackInputs')]
    cfg = config(steps)
    for file in files:
        wanted = theirs(cfg, file)
        found = ours(cfg, file, wanted.shape[2:])
        np.testing.assert_array_equal(found, wanted, err_msg=str(file))
        assert found.dtype == np.float32


@pytest.mark.parametrize(
    'preprocessor',
    [
        dict(to_rgb=False),
        dict(mean=None, std=None),
        dict(mean=[0, 0, 0], std=[255, 255, 255]),
        dict(pad_size_divisor=16),
    ],
)
def test_equals_the_data_preprocessor(files, preprocessor):
    steps = [dict(type='LoadImageFromFile'), EDGE, CROP]
    cfg = config([*steps, dict(type='PackInputs')], **preprocessor)
    wanted = theirs(cfg, files[-1])
    np.testing.assert_array_equal(ours(cfg, files[-1], (48, 48)), wanted)


def test_grey_pictures(files):
    load = dict(type='LoadImageFromFile', color_type='grayscale')
    cfg = config(
        [load, EDGE, CROP, dict(type='PackInputs')], mean=[110.0], std=[60.0]
    )
    for file in files:
        wanted = theirs(cfg, file)
        found = ours(cfg, file, (48, 48))
        assert found.shape == (1, 1, 48, 48)
        np.testing.assert_array_equal(found, wanted, err_msg=str(file))


@pytest.mark.parametrize(
    'ending', ['png', 'bmp', 'ppm', 'tif', 'webp', 'jp2', 'gif']
)
def test_the_brightness_of_every_format(ending, tmp_path):
    """OpenCV's decoders compute it from colours in different ways."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    file = tmp_path / f'picture.{ending}'
    lossless = dict(lossless=True) if ending == 'webp' else {}
    Image.fromarray(pixels).save(file, **lossless)
    np.testing.assert_array_equal(
        read_picture(file, grey=True),
        cv2.imread(str(file), cv2.IMREAD_GRAYSCALE),
    )


def test_a_narrow_picture_is_one_sentence():
    cfg = config([LOAD, dict(type='ResizeEdge', scale=32, edge='long'), PACK])
    settings = preprocessing_settings(cfg, Network(cfg), (32, 32))
    with pytest.raises(FGCError, match=r'300 x 1 pixels, .* become 32 x 0;'):
        preprocess(np.zeros((1, 300, 3), np.uint8), settings)


@pytest.mark.parametrize('error', [RuntimeError, struct.error, KeyError])
def test_decoders_may_raise_anything(files, error, monkeypatch):
    def convert(*_):
        raise error('Failed to decode frame 0')

    monkeypatch.setattr(Image.Image, 'convert', convert)
    with pytest.raises(FGCError, match='cannot be decoded'):
        read_picture(files[-1])


def test_opencv_where_there_is_no_pillow(files, monkeypatch):
    monkeypatch.setitem(sys.modules, 'PIL', None)
    for file in files:
        found = read_picture(file)
        wanted = cv2.imread(str(file))[:, :, ::-1]
        np.testing.assert_array_equal(found, wanted)
    monkeypatch.setitem(sys.modules, 'cv2', None)
    with pytest.raises(FGCError, match='pip install pillow'):
        read_picture(files[0])


@pytest.mark.parametrize('shape', [(64, 48), (1, 5), (8, 8), (50, 75)])
@pytest.mark.parametrize('size', [(32, 24), (7, 9), (99, 200), (8, 8)])
@pytest.mark.parametrize('interpolation', ['bilinear', 'nearest'])
def test_resizes_as_opencv(shape, size, interpolation, monkeypatch):
    rng = np.random.default_rng(0)
    code = dict(bilinear=cv2.INTER_LINEAR, nearest=cv2.INTER_NEAREST)
    for channels in ((), (3,)):
        pixels = rng.integers(0, 256, (*shape, *channels), np.uint8)
        wanted = cv2.resize(
            pixels, size[::-1], interpolation=code[interpolation]
        )
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, 'cv2', None)
            found = resize(pixels, size, interpolation)
        np.testing.assert_array_equal(found, wanted)


def test_the_error_for_missing_packages(monkeypatch):
    pixels = picture(8, 8)
    monkeypatch.setitem(sys.modules, 'cv2', None)
    monkeypatch.setitem(sys.modules, 'PIL', None)
    for name in set(CV2) - {'nearest', 'bilinear'}:
        with pytest.raises(FGCError, match='opencv-python-headless'):
            resize(pixels, (4, 4), name)
    for name in PILLOW:
        with pytest.raises(FGCError, match='pip install pillow'):
            resize(pixels, (4, 4), name, 'pillow')
    with pytest.raises(FGCError, match="'box' of 'cv2' is unknown"):
        resize(pixels, (4, 4), 'box')


PACK = dict(type='PackInputs')
LOAD = dict(type='LoadImageFromFile')


@pytest.mark.parametrize(
    'steps, message',
    [
        ([LOAD, dict(type='Pad', size=(9, 9)), PACK], 'the step Pad, but'),
        (
            [LOAD, dict(type='torchvision/Resize', size=9), PACK],
            'supports LoadImage',
        ),
        ([dict(LOAD, to_float32=True), PACK], 'to_float32=True'),
        ([dict(LOAD, color_type='unchanged'), PACK], 'unchanged'),
        (
            [
                dict(LOAD, color_type='grayscale', imdecode_backend='pillow'),
                PACK,
            ],
            'decodes grey images',
        ),
        ([dict(type='Resize', scale=9), PACK], 'begins with Resize'),
        ([LOAD, dict(type='Resize', scale=9)], 'ends with Resize'),
        ([LOAD, dict(type='Resize', scale_factor=2.0), PACK], 'fixed scale'),
        (
            [LOAD, dict(type='CenterCrop', crop_size=9, auto_pad=True), PACK],
            'without padding',
        ),
    ],
)
def test_the_error_for_unsupported_steps(steps, message):
    cfg = config(steps)
    with pytest.raises(FGCError, match=message) as caught:
        preprocessing_settings(cfg, Network(cfg), (9, 9))
    assert '\n' not in str(caught.value)


def test_the_size_that_a_pipeline_makes():
    for steps, size in (
        ([dict(type='Resize', scale=(9, 7))], [7, 9]),
        ([EDGE, CROP], [48, 48]),
        ([EDGE, cropped((50, 30))], [30, 50]),
    ):
        cfg = config([LOAD, *steps, PACK])
        assert preprocessing_settings(cfg, Network(cfg))['size'] == size
    for steps in ([EDGE], [WITHIN], [], [EDGE, cropped(65)]):
        cfg = config([LOAD, *steps, PACK])
        with pytest.raises(FGCError, match='of several sizes'):
            preprocessing_settings(cfg, Network(cfg))


def test_padding_of_batches_is_refused():
    cfg = config([LOAD, EDGE, CROP, PACK], pad_size_divisor=32)
    with pytest.raises(FGCError, match='multiples of 32'):
        preprocessing_settings(cfg, Network(cfg), (48, 48))


def test_pictures_of_a_data_set_in_memory():
    cfg = config([PACK], 'CIFAR10', to_rgb=False)
    settings = preprocessing_settings(cfg, Network(cfg), (32, 32))
    assert settings['channel_order'] == 'rgb'
    wrapped = Config(cfg.to_dict())
    wrapped.test_dataloader.dataset = dict(
        type='fgc_mm.InMemoryImages', dataset=cfg.test_dataloader.dataset
    )
    again = preprocessing_settings(wrapped, Network(cfg), (32, 32))
    assert again == settings


def test_a_picture_of_the_wrong_size():
    settings = dict(steps=[], size=[8, 8], channel_order='rgb', mean=None)
    with pytest.raises(FGCError, match=r'9 x 8 pixels .* needs 8 x 8'):
        preprocess(picture(8, 9), settings)
    with pytest.raises(FGCError, match="the step 'turn'"):
        preprocess(picture(8, 9), dict(settings, steps=[dict(turn=90)]))


def test_files_that_are_no_pictures(tmp_path, files):
    (tmp_path / 'empty.jpg').touch()
    (tmp_path / 'text.png').write_text('no picture')
    torn = files[-1].read_bytes()[:300]
    (tmp_path / 'torn.jpg').write_bytes(torn)
    for file in tmp_path.iterdir():
        with pytest.raises(FGCError, match=f'{file.name} cannot be decoded'):
            read_picture(file)


@pytest.mark.parametrize(
    'values', [[70000, 3], [-1, 3], [0.2, 1.0], [0.0, 1.0]]
)
def test_values_that_are_no_16_bits(tmp_path, values):
    file = tmp_path / 'deep.tif'
    kind = 'f4' if isinstance(values[0], float) else 'i4'
    Image.fromarray(np.array([values], kind)).save(file)
    with pytest.raises(FGCError, match=r'has (int|float)32 values'):
        read_picture(file)
    Image.fromarray(np.array([[65535, 3]], 'i4')).save(file)
    assert read_picture(file, grey=True).tolist() == [[255, 0]]


def test_16_bits_that_are_not_all_used(tmp_path):
    file = tmp_path / 'dark.png'
    cv2.imwrite(str(file), np.full((4, 4), 1000, np.uint16))
    with pytest.raises(FGCError, match='16-bit values up to 1000'):
        read_picture(file, bits=None)
    assert (read_picture(file, bits=10) == 250).all()
    with pytest.raises(FGCError, match='trained on images of 9 bits'):
        read_picture(file, bits=9)
