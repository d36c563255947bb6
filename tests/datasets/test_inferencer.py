"""mmpretrain's inferencers on our configs, which load images by our class."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.apis import FeatureExtractor, ImageClassificationInferencer

from fgc_mm.datasets import LoadImage

CONFIG = Path(__file__).resolve().parents[2] / 'configs'
CONFIG = CONFIG / 'fgc_resnet20_folder.py'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Of random weights, in the classifier of the config."""
    from fgc_mm.deploy.loading import build_model
    from fgc_mm.engine.config_file import load_config

    model = build_model(load_config(str(CONFIG)))
    file = tmp_path_factory.mktemp('weights') / 'random.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, file)
    return str(file)


@pytest.mark.parametrize(
    'kind', [ImageClassificationInferencer, FeatureExtractor]
)
def test_a_picture_is_classified(kind, checkpoint, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    infer = kind(str(CONFIG), checkpoint, device='cpu')
    (by_path,) = infer(str(tmp_path / 'a.png'))
    (by_array,) = infer(pixels)
    if kind is FeatureExtractor:
        assert torch.equal(by_path[0], by_array[0])
    else:
        assert by_path['pred_scores'].shape == (10,)
        assert np.array_equal(by_path['pred_scores'], by_array['pred_scores'])


def test_what_is_loaded_stays_and_a_path_is_read_again(tmp_path):
    pixels = np.full((4, 4, 3), 7, np.uint8)
    assert LoadImage()({'img': pixels})['img'] is pixels
    cv2.imwrite(str(tmp_path / 'a.png'), pixels * 2)
    both = {'img': pixels, 'img_path': str(tmp_path / 'a.png')}
    assert (LoadImage()(both)['img'] == 14).all()
