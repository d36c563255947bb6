"""A network with the masks of other images."""

import csv
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fgc_mm.analysis import (
    AnalysisOptions,
    choose_images,
    exchange_masks,
    load_dataset,
    measure,
)
from fgc_mm.analysis.figures.exchange import draw_exchanged_masks
from fgc_mm.analysis.mask_exchange import (
    ANOTHER,
    FREQUENT,
    OWN,
    SAME_CLASS,
    _run,
    most_frequent,
    partners,
)
from fgc_mm.analysis.tables import tables
from fgc_mm.deploy.changed_masks import changed_masks

from .conftest import GATES, make_project, run_pass


def exchanged(made, stored, **options):
    dataset = load_dataset(made.cfg, 'test')
    rows = exchange_masks(
        made.cfg, made.checkpoint, dataset, stored, **options
    )
    return {row.masks: row for row in rows}


def test_partners_are_other_images_of_the_class():
    labels = np.array([0, 1, 0, 2, 1, 0, 1, 1])
    found = partners(labels, 0)
    assert sorted(found) == [*range(8)]
    assert (labels[found] == labels).all()
    alone = labels == 2
    assert (found[alone] == np.flatnonzero(alone)).all()
    assert (found[~alone] != np.flatnonzero(~alone)).all()
    assert (partners(labels, 0) == found).all()
    many = np.zeros(100, dtype=int)
    assert (partners(many, 1) != partners(many, 2)).any()


def test_the_most_frequent_mask():
    mask = np.array(
        [[1, 1, 0, 0.5], [1, 0, 0, 0], [1, 0, 1, 1.5], [0, 1, 0, 2]]
    )
    assert most_frequent(mask).tolist() == [1, 0, 0, 4 / 3]
    assert most_frequent(mask[:, :3] != 0).tolist() == [1, 0, 0]


@pytest.fixture(params=list(GATES))
def spread(request, tmp_path):
    """A project whose predictions differ from image to image."""
    made = make_project(tmp_path, request.param)
    stored, _ = run_pass(made, tmp_path / 'first')
    centre(made.model.head.fc, np.asarray(stored.scores))
    torch.save(dict(state_dict=made.model.state_dict()), made.checkpoint)
    made.stored, _ = run_pass(made, tmp_path / 'passes')
    assert len(np.unique(made.stored.predictions)) > 3
    return made


def centre(layer, scores):
    """Make the mean of every class's logarithmic scores 0."""
    mean = torch.tensor(np.log(scores).mean(0))
    layer.bias.data -= mean.to(layer.bias.data)


def test_every_image_has_the_masks_of_its_partner(spread):
    """Against a loop over single images."""
    stored, dataset = spread.stored, load_dataset(spread.cfg, 'test')
    masks = {name: stored.site_array('mask', name) for name in stored.sites}
    other = partners(np.zeros(40), 3)
    kinds = {'any': (masks, other)}
    found = _run(spread.model, spread.cfg, dataset, range(40), kinds)['any']
    for number, prediction, macs in zip(range(40), *found):
        data = spread.model.data_preprocessor(
            dict(
                inputs=[dataset[number]['inputs']],
                data_samples=[dataset[number]['data_samples']],
            )
        )

        def given(site, mask, row=other[number]):
            return torch.tensor(masks[site.name][row][None]).to(mask)

        with changed_masks(spread.model.backbone, given), torch.no_grad():
            (expected,), _ = spread.model.predict_gated(**data)
        assert int(expected.pred_label) == prediction
        assert expected.macs == pytest.approx(macs)
        assert macs == pytest.approx(stored.macs[other[number]])
    # random gates of the other kinds decide almost the same for all images
    if spread.config.stem in ('concrete', 'fbs', 'groups'):
        own = stored.predictions, stored.macs
        assert any((x != y).any() for x, y in zip(found, own))


def test_without_other_images_of_the_class_it_is_left_out(project):
    labels = np.arange(len(project.stored))
    alone = SimpleNamespace(
        labels=labels,
        **{
            name: getattr(project.stored, name)
            for name in (
                'site_array', 'sites', 'indices', 'predictions', 'macs',
                'dense_macs',
            )
        },
    )  # fmt: skip
    assert [*exchanged(project, alone)] == [OWN, ANOTHER, FREQUENT]


def test_exchanged_masks_cost_the_same_in_the_mean(gated):
    rows = exchanged(gated, gated.stored)
    assert [*rows] == [OWN, SAME_CLASS, ANOTHER, FREQUENT]
    assert rows[OWN].accuracy == np.mean(gated.stored.correct)
    for kind in (SAME_CLASS, ANOTHER):
        assert rows[kind].macs == pytest.approx(rows[OWN].macs)
        assert rows[kind].pruning_ratio == pytest.approx(
            rows[OWN].pruning_ratio
        )


def test_gates_that_do_not_read_the_image_lose_nothing(tmp_path):
    made = make_project(tmp_path)
    for gate in made.model.backbone.gates.values():
        gate.expand.weight.data.zero_()
        gate.expand.bias.data.normal_()
    torch.save(dict(state_dict=made.model.state_dict()), made.checkpoint)
    stored, _ = run_pass(made, tmp_path / 'passes')
    own, *others = exchanged(made, stored).values()
    for row in others:
        assert row[1:] == pytest.approx(own[1:])


def test_some_of_the_images(project, tmp_path):
    stored, _ = run_pass(project, tmp_path, images=15)
    dataset = load_dataset(project.cfg, 'test')
    assert stored.indices.tolist() == [*choose_images(len(dataset), 15)]
    rows = exchanged(project, stored)
    assert rows[ANOTHER].macs == pytest.approx(stored.macs.mean())


def test_in_tables_and_figures(project):
    options = AnalysisOptions(embedding='pca')
    plain = measure(project.stored, options)
    assert draw_exchanged_masks([plain]) is None
    assert tables([plain])['exchanged_masks.csv'].split() == ['checkpoint']
    rows = tuple(exchanged(project, project.stored).values())
    found = replace(plain, exchanged=rows)
    lines = [
        *csv.DictReader(io.StringIO(tables([found])['exchanged_masks.csv']))
    ]
    assert [line['masks'] for line in lines] == [row.masks for row in rows]
    assert float(lines[2]['accuracy']) == rows[2].accuracy
    figure = draw_exchanged_masks([plain, found])
    (axes,) = figure.axes
    assert len(axes.patches) == 4
