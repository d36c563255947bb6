"""One pass against the model's own forward; reuse by content, resuming."""

import errno
import json
import os
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmpretrain.structures import DataSample
from PIL import Image

from fgc_mm.analysis import StoredPass, load_dataset
from fgc_mm.analysis.content_key import content_key
from fgc_mm.analysis.extract import _rows
from fgc_mm.analysis.images import Pictures, choose_images, pictures_of
from fgc_mm.analysis.pass_writer import PassWriter
from fgc_mm.errors import FGCError

from .conftest import make_project, run_pass


def test_a_pass_is_what_the_network_does(gated):
    stored, model = gated.stored, gated.model
    dataset = load_dataset(gated.cfg, 'test')
    assert len(stored) == 40 and stored.sites == tuple(
        f'layer3.{i}.conv1' for i in range(3)
    )
    kept = {}
    for path in stored.sites:  # what the second conv of each block is given
        module = model.backbone.backbone.get_submodule(path[:-1] + '2')
        module.register_forward_hook(
            lambda m, x, y, path=path: kept.update({path: x[0].clone()})
        )
    for number in (0, 17, 39):
        data = pseudo_collate([dataset[number]])
        data = model.data_preprocessor(data, False)
        with torch.no_grad():
            (sample,) = model.predict(**data)
            _, records = model.backbone.forward_gated(data['inputs'], True)
        assert stored.labels[number] == int(sample.gt_label)
        assert stored.predictions[number] == int(sample.pred_label)
        assert stored.macs[number] == float(sample.macs)
        assert stored.dense_macs[number] == sample.macs_table.base()
        close = dict(rtol=1e-4, atol=1e-5)
        assert np.allclose(stored.scores[number], sample.pred_score, **close)
        for record in records:
            site = record.site.name
            pooled = record.activation.mean((2, 3))[0]
            of = {
                kind: stored.site_array(kind, site)[number]
                for kind in ('features', 'logits', 'probs', 'mask')
            }
            assert np.allclose(of['features'], pooled, **close)
            assert np.allclose(of['logits'], record.logits[0], **close)
            assert np.allclose(of['probs'], record.probs[0], **close)
            assert np.allclose(of['mask'], record.mask[0], **close)
            gated_mean = kept[site].mean((2, 3))[0]
            masked = of['features'] * of['mask']
            assert np.allclose(masked, gated_mean, **close)


def test_masks_of_gates_that_scale_keep_their_factors(gated):
    mask = gated.stored.site_array('mask', gated.stored.sites[0])
    scales = gated.config.stem in ('fbs', 'manidp')
    assert mask.dtype == (np.float32 if scales else bool)


def test_the_same_content_is_not_computed_again(project, tmp_path):
    folder = tmp_path / 'passes'
    _, said = run_pass(project, folder)
    assert 'one pass over 40 images' in said[0]
    moved = tmp_path / 'another name.pth'
    moved.write_bytes(Path(project.checkpoint).read_bytes())
    same = SimpleNamespace(cfg=project.cfg, checkpoint=str(moved))
    _, said = run_pass(same, folder)
    assert 'loaded from' in said[0]


@pytest.mark.parametrize('change', ['weights', 'config', 'images', 'pixels'])
def test_other_content_is(project, tmp_path, change):
    first, _ = run_pass(project, tmp_path)
    made, options = project, {}
    if change == 'weights':
        made = make_project(tmp_path, seed=1)
    elif change == 'config':
        cfg = deepcopy(project.cfg)
        cfg.model.backbone.gate.threshold = 0.7
        made = SimpleNamespace(cfg=cfg, checkpoint=project.checkpoint)
    elif change == 'images':
        options['images'] = 20
    else:
        dataset = load_dataset(project.cfg, 'test')
        info = dataset.get_data_info

        def darker(index):
            return {**info(index), 'img': info(index)['img'] // 2}

        dataset.get_data_info = darker
        options['dataset'] = dataset
    second, said = run_pass(made, tmp_path, **options)
    assert 'one pass over' in said[0]
    assert second.folder != first.folder


class Breaking:
    """A data set that cannot read its images from one place on."""

    def __init__(self, dataset, last):
        self.dataset, self.last, self.read = dataset, last, []

    def __len__(self):
        return len(self.dataset)

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def __getitem__(self, index):
        if index > self.last:
            raise OSError('the disk is gone')
        self.read.append(index)
        return self.dataset[index]


def test_an_interrupted_pass_is_continued(project, tmp_path):
    dataset = Breaking(load_dataset(project.cfg, 'test'), 35)
    with pytest.raises(OSError, match='disk is gone'):
        run_pass(project, tmp_path, dataset=dataset)
    (aside,) = tmp_path.iterdir()
    assert json.loads((aside / 'progress.json').read_text()) == {'done': 32}
    assert StoredPass.open(aside, 'unfinished') is None
    dataset.last, dataset.read = 99, []
    stored, said = run_pass(project, tmp_path, dataset=dataset)
    assert dataset.read == list(range(32, 40))
    assert '32 already processed' in said[0]
    assert [*tmp_path.iterdir()] == [stored.folder]
    for site in stored.sites:
        for kind in ('features', 'logits', 'probs', 'mask'):
            ours, whole = (
                p.site_array(kind, site) for p in (stored, project.stored)
            )
            assert np.allclose(ours, whole, atol=1e-6)
    assert np.array_equal(stored.indices, project.stored.indices)


def test_damaged_files_are_not_taken(project, tmp_path):
    stored, _ = run_pass(project, tmp_path)
    (stored.folder / 'pass.json').write_text('{')
    _, said = run_pass(project, tmp_path)
    assert 'one pass over' in said[0]


def test_images_of_the_training_set_are_not_augmented(project, tmp_path):
    stored, _ = run_pass(project, tmp_path, split='train')
    again, _ = run_pass(project, tmp_path / 'again', split='train')
    assert len(stored) == 30 and stored.split == 'train'
    assert np.array_equal(stored.scores, again.scores)


def test_images_are_at_even_distances():
    assert list(choose_images(10, None)) == list(range(10))
    assert choose_images(10, 4) == [0, 2, 5, 7]
    assert list(choose_images(10, 99)) == list(range(10))
    with pytest.raises(FGCError, match='--images 0'):
        choose_images(10, 0)


def test_pictures_have_their_true_colours():
    pixels = torch.zeros(3, 4, 4, dtype=torch.uint8)
    pixels[0] = 200  # blue if the file was read by OpenCV
    dataset = [dict(inputs=pixels)]
    assert Pictures(dataset, bgr=True)(0)[0, 0].tolist() == [0, 0, 200]
    assert Pictures(dataset, bgr=False)(0)[0, 0].tolist() == [200, 0, 0]
    grey = Pictures([dict(inputs=torch.rand(1, 4, 4))], bgr=True)(0)
    assert grey.shape == (4, 4, 3) and grey.dtype == np.uint8
    assert grey.min() == 0 and grey.max() == 255


@pytest.mark.parametrize('inputs', [torch.rand(7), torch.rand(5, 4, 4), 'x'])
def test_what_is_no_picture(inputs):
    with pytest.raises(FGCError, match='--no-pictures'):
        Pictures([dict(inputs=inputs)], bgr=False)(0)


def test_pictures_of_a_config(project):
    dataset = load_dataset(project.cfg, 'test')
    picture = pictures_of(project.cfg, dataset)(3)
    assert np.array_equal(picture, dataset.get_data_info(3)['img'])
    dataset = Breaking(dataset, -1)
    with pytest.raises(FGCError, match='the disk is gone'):
        pictures_of(project.cfg, dataset)(3)


def test_the_models_own_preprocessor_decides(project):
    """Where both say how colours are stored, as when it is built."""
    cfg = project.cfg.copy()
    cfg.data_preprocessor = dict(to_rgb=True)
    cfg.model.data_preprocessor = dict(to_rgb=False)
    dataset = load_dataset(project.cfg, 'test')
    assert np.array_equal(
        pictures_of(cfg, dataset)(3), pictures_of(project.cfg, dataset)(3)
    )


@pytest.mark.skipif(
    not hasattr(os, 'posix_fallocate'), reason='not on this system'
)
def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    """Without reserved space the process would end by a signal."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'posix_fallocate', full)
    writer = PassWriter(tmp_path / 'pass', 4)
    with pytest.raises(OSError, match='No space left on device') as error:
        writer.write(dict(scores=np.ones((2, 3))))
    assert error.value.filename.endswith('scores.npy')


def test_the_space_of_a_pass_is_reserved(tmp_path):
    writer = PassWriter(tmp_path / 'pass', 100_000)
    writer.write(dict(scores=np.ones((2, 3))))
    (file,) = tmp_path.rglob('scores.npy')
    assert file.stat().st_blocks * 512 >= 100_000 * 3 * 8


def test_images_without_a_class_are_refused(project, tmp_path):
    dataset = load_dataset(project.cfg, 'test')
    full = dataset.__getitem__

    class Unlabelled(Breaking):
        def __getitem__(self, index):
            item = full(index)
            item['data_samples'].pop('gt_label')
            return item

    with pytest.raises(FGCError, match='exactly one label'):
        run_pass(project, tmp_path, dataset=Unlabelled(dataset, 99))


def test_macs_before_compaction_are_the_dense_ones():
    """As ``DynamicMACs`` has them, so that pruning ratios agree."""
    table = SimpleNamespace(dense=5, base=lambda: 7)
    sample = DataSample().set_gt_label(1).set_pred_label(0)
    sample.set_pred_score(torch.ones(2))
    sample.set_field(torch.tensor(3.0), 'macs')
    sample.set_field(table, 'macs_table')
    rows = _rows([sample], [], np.array([0]))
    assert rows['dense_macs'].tolist() == [7] and rows['macs'] == 3


class Elsewhere(torch.Tensor):
    """As on a GPU, whose memory numpy cannot read."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def numpy(self):
        raise TypeError('copy it to the host first')


def test_pictures_of_images_on_a_gpu():
    pixels = torch.arange(12, dtype=torch.uint8).view(3, 2, 2)
    dataset = [dict(inputs=pixels.as_subclass(Elsewhere))]
    picture = Pictures(dataset, bgr=False)(0)
    assert (picture == pixels.permute(1, 2, 0).numpy()).all()


@pytest.fixture
def folder(tmp_path):
    """Two class folders with a red picture each."""
    for name in ('cat', 'dog'):
        place = tmp_path / 'Workload' / name
        place.mkdir(parents=True)
        Image.new('RGB', (8, 8), (200, 0, 0)).save(place / 'one.png')
    return tmp_path / 'Workload'


def of_folder(cfg, folder, loader='fgc_mm.LoadImage', **dataset):
    """The config with the pictures of a folder as both sets."""
    cfg = deepcopy(cfg)
    steps = [dict(type=loader)] if loader else []
    images = dict(
        type='fgc_mm.ImageFolder', data_root=str(folder), **dataset,
        pipeline=[*steps, dict(type='PackInputs')],
    )  # fmt: skip
    for split in ('train', 'test'):
        cfg[f'{split}_dataloader'] = dict(batch_size=2, dataset=images)
    return cfg


def test_the_loader_decides_the_order_of_colours(project, folder):
    """And not the letters of a path."""
    cfg = of_folder(project.cfg, folder)
    picture = pictures_of(cfg, load_dataset(cfg, 'test'))(0)
    assert picture[0, 0].tolist() == [200, 0, 0]
    cfg = of_folder(project.cfg, folder, loader=None)
    assert not pictures_of(cfg, None).bgr


def test_a_changed_file_is_other_content(project, folder):
    cfg = of_folder(project.cfg, folder)
    dataset = load_dataset(cfg, 'test')
    keys = [content_key(cfg, project.checkpoint, dataset, [0, 1])]
    file = folder / 'dog' / 'one.png'
    os.utime(file, ns=(1, 1))
    keys.append(content_key(cfg, project.checkpoint, dataset, [0, 1]))
    keys.append(content_key(cfg, project.checkpoint, dataset, [0]))
    Image.new('RGB', (8, 8), (0, 200, 0)).save(file)
    keys.append(content_key(cfg, project.checkpoint, dataset, [0, 1]))
    again = content_key(cfg, project.checkpoint, dataset, [0, 1])
    assert len({*keys}) == 4 and again == keys[-1]


@pytest.mark.parametrize('split', ['train', 'test'])
def test_other_names_of_classes_are_other_content(project, folder, split):
    keys = set()
    for names in (['a', 'b'], ['c', 'd']):
        cfg = of_folder(project.cfg, folder)
        cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=names)
        dataset = load_dataset(cfg, split)
        keys.add(content_key(cfg, project.checkpoint, dataset, [0, 1]))
    assert len(keys) == 2
