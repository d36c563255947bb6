"""From a stored pass to the files that a reader gets."""

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from fgc_mm.analysis import (
    AnalysisOptions,
    StoredPass,
    load_dataset,
    measure,
    pictures_of,
    write_analysis,
)
from fgc_mm.analysis.figures.cost import draw_calibration
from fgc_mm.analysis.figures.labels_and_grids import short_class
from fgc_mm.analysis.figures.maps import draw_embeddings
from fgc_mm.analysis.retrieval import query_images
from fgc_mm.analysis.sections import sections
from fgc_mm.analysis.tables import as_json, tables
from fgc_mm.errors import FGCError
from fgc_mm.figure_style import figure_bytes

OPTIONS = AnalysisOptions(embedding='pca', shown_sites=2)
FIGURES = {
    'clusters', 'neighbors', 'channels', 'error_by_macs', 'calibration',
    'macs_of_answers', 'macs_of_classes', 'embeddings', 'frequency_tiny',
    'retrieval_tiny', 'extremes_tiny',
}  # fmt: skip


class Links(HTMLParser):
    """All addresses of a page, and the texts of its elements."""

    def __init__(self):
        super().__init__()
        self.addresses, self.anchors, self.images = [], [], 0

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [attrs[k] for k in ('href', 'src') if k in attrs]
        self.anchors += [attrs['id']] if 'id' in attrs else []
        self.images += tag == 'img'


@pytest.fixture(scope='module')
def measured(project):
    return measure(project.stored, OPTIONS)


def test_every_gate_can_be_analysed(gated):
    found = measure(gated.stored, OPTIONS)
    assert found.shown == ('layer3.1.conv1', 'layer3.2.conv1')
    assert json.loads(as_json([found], OPTIONS, {}))['checkpoints']
    for site in found.sites:
        assert 0 < site.use.keep_ratio <= 1 and 0 <= site.clusters.nmi <= 1
        assert np.isfinite(found.frequency[site.site]).any()


def test_numbers_agree_with_the_pass(measured, project):
    stored, summary = project.stored, measured.summary
    assert summary.accuracy == np.mean(stored.predictions == stored.labels)
    assert summary.macs == stored.macs.mean() < summary.dense_macs
    opened = [stored.site_array('mask', s) != 0 for s in stored.sites]
    keep = np.concatenate(opened, axis=1).mean()
    assert summary.keep_ratio == pytest.approx(keep)
    assert measured.clusters == len(np.unique(stored.labels))
    assert measured.neighbors == 1  # a fiftieth of 40
    rows = list(csv.DictReader(io.StringIO(tables([measured])['sites.csv'])))
    assert [row['site'] for row in rows] == list(stored.sites)
    images = list(
        csv.DictReader(io.StringIO(tables([measured])['images.csv']))
    )
    assert [float(row['macs']) for row in images] == stored.macs.tolist()


def test_retrieval_joins_all_sites(measured, project):
    stored, retrieval = project.stored, measured.retrieval
    rows = []
    for number in range(40):
        parts = [stored.site_array('logits', s)[number] for s in stored.sites]
        rows.append(np.concatenate([p / np.linalg.norm(p) for p in parts]))
    for row, query in enumerate(retrieval.queries):
        near = [rows[query] @ rows[i] / len(stored.sites) for i in range(40)]
        order = sorted(set(range(40)) - {query}, key=lambda i: -near[i])
        assert retrieval.found[row].tolist() == order[:8]
        found = retrieval.similarity[row]
        assert np.allclose(found, [near[i] for i in order[:8]], atol=1e-5)


def test_queries_come_from_different_classes():
    labels = np.array([0] * 20 + [1, 2, 3])
    queries = query_images(labels, 6, 0)
    counts = np.bincount(labels[queries])
    assert counts.tolist() == [3, 1, 1, 1] and len(set(queries)) == 6


def test_the_report_stands_alone(measured, project, tmp_path):
    picture = pictures_of(project.cfg, load_dataset(project.cfg, 'test'))
    about = dict(config='<b>&.py')
    report = write_analysis([measured], OPTIONS, about, tmp_path, picture)
    text = report.read_text()
    page = Links()
    page.feed(text)
    assert page.images == len(FIGURES)
    inside = {f'#{anchor}' for anchor in page.anchors}
    for address in page.addresses:
        assert address in inside or address.startswith('data:image/svg+xml')
    assert not re.search(r'url\(|@import|<script', text)
    assert '&lt;b&gt;&amp;.py' in text and '{{' not in text
    for figure in ('Fig. 8', 'Fig. 9', 'Fig. 10', 'Figs. 6 and 7'):
        assert figure in text
    assert 'PCA' in text
    for kind in ('png', 'svg'):
        names = {f.stem for f in (tmp_path / 'figures').glob(f'*.{kind}')}
        assert names == FIGURES
    numbers = json.loads((tmp_path / 'numbers.json').read_text())
    (one,) = numbers['checkpoints']
    assert len(one['sites']) == 3 and one['embedding'] == ['PCA']
    assert not [*tmp_path.rglob('*.part')]


def test_the_same_analysis_is_the_same_files(measured, project):
    again = measure(project.stored, OPTIONS)
    assert tables([measured]) == tables([again])
    drawn = [
        figure_bytes(draw_embeddings([found]), 'svg')
        for found in (measured, again)
    ]
    assert drawn[0] == drawn[1]


def test_checkpoints_stand_side_by_side(measured, project):
    later = measure(replace(project.stored, name='later'), OPTIONS, measured)
    found = {s.anchor: s for s in sections([measured, later], OPTIONS, None)}
    assert 'retrieval' not in found and 'extremes' not in found
    names = [figure.name for figure in found['embeddings'].figures]
    assert names == ['embeddings_layer3.1.conv1', 'embeddings_layer3.2.conv1']
    assert len(found['frequency'].figures) == 2


def test_each_map_names_its_method_where_they_differ(measured):
    """Few different vectors are always shown by PCA."""
    first, *others = measured.embeddings
    other = replace(
        measured, embeddings=(first._replace(method='t-SNE'), *others)
    )
    axes = draw_embeddings([other]).axes
    assert [x.get_xlabel() for x in axes] == ['t-SNE', 'PCA', 'PCA', 'PCA']
    assert [x.get_ylabel() for x in axes] == ['features', '', 'gates', '']
    axes = draw_embeddings([measured]).axes
    assert [x.get_xlabel() for x in axes] == [''] * 4
    assert axes[0].get_ylabel() == 'features, PCA'
    pair = [measured, other]
    drawn = {s.anchor: s for s in sections(pair, OPTIONS, None)}
    texts = [f.caption.computed for f in drawn['embeddings'].figures]
    assert ['t-SNE' in text for text in texts] == [True, False]


def test_scores_that_are_not_numbers_are_refused(project):
    stored = replace(project.stored, name='spoilt')
    scores = np.array(stored.scores)
    scores[3, 0] = np.nan
    stored.__dict__['scores'] = scores
    with pytest.raises(FGCError, match='spoilt gives 1 of 40 images class'):
        measure(stored, OPTIONS)


def test_many_classes_and_sites_are_drawn(project):
    stored = project.stored
    names = tuple(f'a class with a long name {i}' for i in range(60))
    many = replace(stored, classes=names)
    many.__dict__['labels'] = np.arange(40)
    many.__dict__['scores'] = np.eye(60, dtype=np.float32)[:40]
    found = measure(many, replace(OPTIONS, shown_sites=9))
    drawn = {s.anchor: s for s in sections([found], OPTIONS, None)}
    assert [f.name for f in drawn['cost'].figures] == [
        'error_by_macs', 'macs_of_answers', 'macs_of_classes']  # fmt: skip
    # of 40 classes with one image, the 12 cheapest and the 12 most expensive
    (axes,) = drawn['cost'].figures[-1].figure.axes
    order = np.argsort(stored.macs, kind='stable')
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        short_class(names[i], 14) for i in (*order[:12], *order[-12:])
    ]
    medians = [box.get_segments()[0][0, 1] for box in axes.collections[1::2]]
    assert medians == sorted(medians) and len(medians) == 24


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(sites=('layer3.*', 'stem')), '--sites stem matches none'),
        (dict(clusters=41), '--clusters 41 does not fit 40 images'),
        (dict(clusters=1), '--clusters 1 does not fit'),
        (dict(neighbors=40), '--neighbors 40 does not fit 40 images'),
        (dict(neighbors=0), '--neighbors 0 does not fit'),
    ],
)
def test_what_does_not_fit_the_images(project, options, words):
    with pytest.raises(FGCError, match=words):
        measure(project.stored, replace(OPTIONS, **options))


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(seed=-1), '--seed -1'),
        (dict(bins=0), 'bins=0'),
        (dict(gate_vector='weights'), "gate vector 'weights'"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(FGCError, match=words):
        AnalysisOptions(**options)


@pytest.mark.parametrize(
    'labels, words',
    [
        (np.full(40, 3), 'all 40 images have the class 3'),
        (np.arange(40), 'the class number 10, but'),
        (np.arange(40) % 2 - 1, 'the class number -1, but'),
    ],
)
def test_classes_that_cannot_be_compared(project, labels, words):
    stored = replace(project.stored)
    stored.__dict__['labels'] = labels
    with pytest.raises(FGCError, match=words):
        measure(stored, OPTIONS)


def test_scores_that_are_no_probabilities(project):
    stored = replace(project.stored)
    stored.__dict__['scores'] = np.asarray(project.stored.scores) * 9
    found = measure(stored, OPTIONS)
    assert found.calibration is None
    assert found.summary.calibration_error is None
    assert draw_calibration([found]) is None


def test_no_pass_is_no_pass(tmp_path):
    assert StoredPass.open(tmp_path, 'x') is None
