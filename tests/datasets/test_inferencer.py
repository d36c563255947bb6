"""mmpretrain's inferencers on our configs, which load images by our class."""

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.apis import (
    FeatureExtractor,
    ImageClassificationInferencer,
    get_model,
)

from fgc_mm import config_file
from fgc_mm.datasets import LoadImage
from fgc_mm.deploy.loading import build_model
from fgc_mm.engine.config_file import load_config

# images of files, of files held in memory, of ImageNet and of arrays
CONFIGS = {
    'fgc_resnet20_folder': (32, 10),
    'fgc_resnet20_folder16_55': (16, 10),
    'fgc_resnet18_imagenet': (224, 1000),
    'fgc_resnet20_digits': (8, 10),
}


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Makes a file of random weights of a config's classifier."""

    def make(config):
        model = build_model(load_config(config))
        file = tmp_path_factory.mktemp('weights') / 'random.pth'
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, file)
        return str(file)

    return make


@pytest.mark.parametrize('name', CONFIGS)
def test_a_picture_is_classified(name, weights, tmp_path):
    size, classes = CONFIGS[name]
    shape = size, size, 3
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    config = config_file(name)
    model = get_model(config, weights(config), device='cpu')

    infer = ImageClassificationInferencer(model)
    by_path, by_array = infer([str(tmp_path / 'a.png'), pixels])
    assert by_path['pred_scores'].shape == (classes,)
    assert np.array_equal(by_path['pred_scores'], by_array['pred_scores'])

    extract = FeatureExtractor(model)
    by_path, by_array = extract([str(tmp_path / 'a.png'), pixels])
    assert torch.equal(by_path[0], by_array[0])


def test_what_is_loaded_stays_and_a_path_is_read_again(tmp_path):
    pixels = np.full((4, 4, 3), 7, np.uint8)
    assert LoadImage()({'img': pixels})['img'] is pixels
    cv2.imwrite(str(tmp_path / 'a.png'), pixels * 2)
    both = {'img': pixels, 'img_path': str(tmp_path / 'a.png')}
    assert (LoadImage()(both)['img'] == 14).all()
