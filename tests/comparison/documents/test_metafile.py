"""Stored results as the metafile of MIM and mmpretrain."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmpretrain import get_model, inference_model, list_models
from modelindex.load_model_index import load

from fgc_mm import FGCError, register_models
from fgc_mm.comparison.documents.blocks import read_studies
from fgc_mm.comparison.documents.metafile import update_metafile
from fgc_mm.comparison.stored_results import read_stored_results

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / 'configs' / 'metafile.yml'
NAME = 'fgc_resnet20_folder16_55'


def test_the_metafile_matches_the_results():
    assert FILE.read_text() == update_metafile(FILE.read_text(), ROOT)


def test_numbers_are_means_over_the_seeds():
    study = read_studies('configs/studies/cifar10_jpeg16.yaml', ROOT)
    kept = read_stored_results(ROOT / 'results' / 'cifar10_jpeg16', study)
    errors = [x['error'] for x in kept if x['method'] == NAME]
    (model,) = [
        x for x in yaml.safe_load(FILE.read_text())['Models']
        if x['Name'] == NAME
    ]  # fmt: skip
    metrics = model['Results'][0]['Metrics']
    assert metrics['Seeds'] == len(errors)
    mean = 100 - sum(errors) / len(errors)
    assert metrics['Top 1 Accuracy'] == pytest.approx(mean, abs=0.005)
    assert model['Metadata']['Weight'] == 'not published/'


def test_it_is_read_as_mim_reads_it():
    index = load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    collections = {collection.name for collection in index.collections}
    for model in index.models:
        assert model.in_collection in collections
        assert (ROOT / model.config).is_file()
        assert model.weights is None


def test_a_file_that_names_no_results_is_refused():
    with pytest.raises(FGCError, match='# results of PLAN in FOLDER'):
        update_metafile('Models: []\n', ROOT)


def test_mmpretrain_finds_the_models_by_name(tmp_path):
    register_models()
    register_models()  # a second time changes nothing
    assert NAME in list_models('fgc_')
    model = get_model(NAME)
    file = tmp_path / 'random.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), file)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    image = str(tmp_path / 'a.png')
    by_name = inference_model(NAME, image, pretrained=str(file))
    by_model = inference_model(model, image)
    assert by_name['pred_label'] == by_model['pred_label']
    assert by_name['pred_scores'] == pytest.approx(by_model['pred_scores'])
