"""What a figure of a sweep shows, read back from the SVG and the axes."""

from matplotlib.figure import Figure
from PIL import Image

from fgc_mm.comparison import sweep_plot as module
from fgc_mm.comparison.study import Axis
from fgc_mm.comparison.table import MeanStd, Row


def row(name, error, ratio, std=0.5):
    values = {
        'error': MeanStd(error, std),
        'macs/pruning_ratio': MeanStd(ratio, None),
    }
    return Row(name, 'data', 3, True, (0, 1), values)


ROWS = [row('a', 9.0, 50.0), row('b', 8.0, 40.0), row('c', 7.0, 60.0)]


def drawn(monkeypatch, axis):
    """The axes of the figure."""
    figures = []
    monkeypatch.setattr(
        module, 'figure_bytes', lambda figure, _: figures.append(figure)
    )
    module.sweep_plot(axis, ROWS)
    (figure,) = figures
    assert isinstance(figure, Figure)
    return figure.axes[0]


def lines(axes):
    return [
        [*zip(*container.lines[0].get_data())] for container in axes.containers
    ]


def test_error_over_a_setting(monkeypatch):
    axis = Axis('K', {'FGC': {'b': 200, 'a': 5, 'missing': 9}})
    axes = drawn(monkeypatch, axis)
    assert lines(axes) == [[(5, 9.0), (200, 8.0)]]
    assert axes.get_xlabel() == 'K' and axes.get_xscale() == 'symlog'


def test_settings_of_alike_size_have_a_linear_axis(monkeypatch):
    axis = Axis('x', {'FGC': {'a': -1, 'b': 0, 'c': 2}})
    assert drawn(monkeypatch, axis).get_xscale() == 'linear'


def test_error_over_pruned_macs(monkeypatch):
    axis = Axis(None, {'x': {'a': None, 'b': None}, 'y': {'c': None}})
    axes = drawn(monkeypatch, axis)
    assert lines(axes) == [[(40.0, 8.0), (50.0, 9.0)], [(60.0, 7.0)]]
    assert axes.get_xlabel() == 'pruned MACs (%)'
    assert [t.get_text() for t in axes.get_legend().texts] == ['x', 'y']


def test_it_is_a_picture_even_before_any_run(tmp_path):
    axis = Axis('K', {'FGC': {'a': 5, 'b': 200}})
    (tmp_path / 'a.png').write_bytes(module.sweep_plot(axis, []))
    with Image.open(tmp_path / 'a.png') as picture:
        assert picture.width > 500
    assert module.sweep_plot(axis, ROWS, 'svg').lstrip().startswith(b'<?xml')


def test_names_that_matplotlib_would_read_as_formulas(monkeypatch):
    axis = Axis('$x_$', {'_a': {'a': 1, 'b': 2}, 'y $z_$': {'c': 3}})
    axes = drawn(monkeypatch, axis)
    texts = [t.get_text() for t in axes.get_legend().texts]
    assert texts == [' _a', r'y \$z_\$'] and axes.get_xlabel() == r'\$x_\$'
    monkeypatch.undo()
    assert module.sweep_plot(axis, ROWS)
