"""A network with the masks of other images."""

import csv
import io
from dataclasses import replace

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
from fgc_mm.analysis.figures import draw_exchanged_masks
from fgc_mm.analysis.mask_exchange import (
    ANOTHER,
    FREQUENT,
    OWN,
    SAME_CLASS,
    most_frequent,
    partners,
)
from fgc_mm.analysis.tables import tables
from fgc_mm.deploy.changed_masks import changed_masks

from .conftest import make_project, run_pass


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


def test_every_image_has_the_masks_of_its_partner(gated):
    """Against a loop over single images."""
    stored, dataset = gated.stored, load_dataset(gated.cfg, 'test')
    labels = np.asarray(stored.labels)
    masks = {name: stored.site_array('mask', name) for name in stored.sites}
    rows = exchanged(gated, stored, seed=3)
    for kind, same in ((SAME_CLASS, labels), (ANOTHER, 0 * labels)):
        other = partners(same, 3)
        correct, macs = [], []
        for number in range(len(labels)):
            data = gated.model.data_preprocessor(
                dict(
                    inputs=[dataset[number]['inputs']],
                    data_samples=[dataset[number]['data_samples']],
                )
            )

            def given(site, mask, row=other[number]):
                return torch.tensor(masks[site.name][row][None]).to(mask)

            with changed_masks(gated.model.backbone, given), torch.no_grad():
                (found,), _ = gated.model.predict_gated(**data)
            correct.append(int(found.pred_label) == labels[number])
            macs.append(found.macs)
        assert rows[kind].accuracy == np.mean(correct)
        assert rows[kind].macs == pytest.approx(np.mean(macs))


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
