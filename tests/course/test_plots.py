"""Figures show the numbers they were given: read back from what was drawn."""

import colorsys
from collections.abc import Iterator
from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from mini.course import plots

# A warning in a notebook's output would carry a path.
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def ax() -> Iterator[Axes]:
    """Axes in memory, without a window."""
    with mpl.rc_context({"backend": "Agg"}):
        figure, axes = plt.subplots()
        yield axes
        plt.close(figure)


def test_a_style_is_set_for_the_whole_process():
    with mpl.rc_context():
        mpl.rcdefaults()
        plots.use_style()
        for name, value in plots.STYLE.items():
            assert mpl.rcParams[name] == value


def test_a_figure_is_a_slide_wide_and_its_axes_flat():
    with mpl.rc_context({"backend": "Agg"}):
        figure, axes = plots.figure(3, 2, height=2.0)
        assert axes.shape == (6,)
        assert figure.get_size_inches().tolist() == [11, 4]
        # Row by row, as one reads.
        assert axes[0].get_subplotspec().rowspan == axes[2].get_subplotspec().rowspan
        plt.close(figure)


def grey(color: str) -> float:
    """The luma of a colour, 0 to 1, as a printer or a video signal turns it grey."""
    return colorsys.rgb_to_yiq(*to_rgb(color))[0]


@pytest.mark.parametrize("pair", list(combinations(plots.ROLES, 2)), ids="-".join)
def test_roles_differ_without_colour(pair):
    one, other = (plots.ROLES[role] for role in pair)
    assert one["linestyle"] != other["linestyle"]
    assert one["marker"] != other["marker"]
    assert to_rgb(one["color"]) != to_rgb(other["color"])


@pytest.mark.parametrize("role", plots.ROLES)
def test_roles_are_seen_on_white(role):
    assert grey(plots.ROLES[role]["color"]) < 0.65


def test_the_roles_compared_most_differ_in_grey_too():
    baseline, method, control = (
        grey(plots.ROLES[role]["color"]) for role in ("baseline", "method", "control")
    )
    assert min(abs(baseline - method), abs(method - control), abs(baseline - control)) > 0.05


@pytest.mark.parametrize("role", plots.ROLES)
def test_a_curve_is_the_mean_and_its_band_the_range_of_the_seeds(ax, role):
    x = [1, 2, 4]
    values = np.array([[0.1, 0.2, 0.9], [0.3, 0.4, 0.2], [0.2, 0.9, 0.1]])
    mean = plots.curve(ax, x, values, role, "ours", label_offset=5)
    np.testing.assert_allclose(mean, [0.2, 0.5, 0.4])
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xydata(), np.stack([x, mean], axis=1))
    look = plots.ROLES[role]
    alike = Line2D([], [], **look)
    assert line.get_color() == look["color"]
    # What `get_linestyle` returns is "--" for every pattern that has no name.
    assert line._unscaled_dash_pattern == alike._unscaled_dash_pattern
    assert line.get_marker() == look["marker"]
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    for i, at in enumerate(x):
        heights = corners[corners[:, 0] == at, 1]
        assert (heights.min(), heights.max()) == (values[:, i].min(), values[:, i].max())
    (label,) = ax.texts
    assert label.get_text() == "ours"
    assert label.xy == (4, pytest.approx(0.4))
    assert label.get_position() == (8, 5)
    assert label.get_color() == look["color"]


def test_dots_are_the_values_and_bars_their_means(ax):
    groups = {"SGD": ([0.70, 0.72, 0.77], "baseline"), "SAM": ([0.80, 0.84], "method")}
    plots.dots(ax, groups, unit=" nats")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["SGD", "SAM"]
    assert ax.get_yticks().tolist() == [0, 1]
    for row, (values, role) in enumerate(groups.values()):
        points, bar = ax.lines[2 * row : 2 * row + 2]
        assert points.get_xdata().tolist() == values
        assert list(points.get_ydata()) == [row] * len(values)
        assert points.get_marker() == plots.ROLES[role]["marker"]
        assert points.get_linestyle() == "None"
        assert points.get_color() == plots.ROLES[role]["color"]
        assert list(bar.get_xdata()) == pytest.approx([np.mean(values)] * 2)
        assert np.mean(bar.get_ydata()) == pytest.approx(row)
    assert [text.get_text() for text in ax.texts] == ["0.730 nats", "0.820 nats"]
    assert [text.xy[0] for text in ax.texts] == pytest.approx([0.73, 0.82])
    # The first group stands on top, and nothing is cut off.
    bottom, top = ax.get_ylim()
    assert bottom > 1.3
    assert top < -0.3


def test_means_of_many_rows_stand_in_a_column_at_the_right(ax):
    plots.dots(ax, {"a": ([0.1, 0.2], "baseline"), "b": ([0.9], "method")}, column=True)
    assert [text.get_text() for text in ax.texts] == ["0.150", "0.900"]
    assert [text.get_position() for text in ax.texts] == [(1.01, 0), (1.01, 1)]
    for row, text in enumerate(ax.texts):  # x is a share of the axes' width, y the row
        x, y = ax.transData.inverted().transform(text.get_transform().transform((1.01, row)))
        assert (x > ax.get_xlim()[1], y) == (True, pytest.approx(row))


def place(i: int, y: int, x: int, size: tuple[int, int], columns: int, gap: int) -> tuple[int, int]:
    """Where pixel (y, x) of image `i` lies in the mosaic."""
    row, column = divmod(i, columns)
    return gap + row * (size[0] + gap) + y, gap + column * (size[1] + gap) + x


@pytest.mark.parametrize("kind", ["uint8", "float"])
@pytest.mark.parametrize("gap", [0, 2])
def test_images_stand_row_by_row(ax, kind, gap):
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8, generator=torch.manual_seed(0))
    white = 255
    if kind == "float":
        images, white = images / 255, 1.0
    plots.show_images(ax, images, columns=3, gap=gap)
    shown = np.asarray(ax.images[0].get_array())
    assert shown.shape == (2 * 4 + 3 * gap, 3 * 6 + 4 * gap, 3)
    rest = np.ones(shown.shape[:2], dtype=bool)
    for i, y, x in np.ndindex(5, 4, 6):
        at = place(i, y, x, (4, 6), 3, gap)
        np.testing.assert_array_equal(shown[at], images[i, :, y, x])
        rest[at] = False
    assert (shown[rest] == white).all()
    assert ax.images[0].get_interpolation() == "nearest"


def test_a_single_image_is_itself(ax):
    images = torch.rand(1, 3, 4, 4, generator=torch.manual_seed(0))
    plots.show_images(ax, images, columns=3)
    np.testing.assert_array_equal(ax.images[0].get_array(), images[0].permute(1, 2, 0))


def test_tiles_stand_row_by_row_on_one_scale(ax):
    tiles = torch.rand(6, 2, 3, generator=torch.manual_seed(0)) - 0.5
    image = plots.show_tiles(ax, tiles, columns=3)
    assert image is ax.images[0]
    shown = image.get_array()
    assert shown.shape == (2 * 3 + 1, 3 * 4 + 1)
    for i, y, x in np.ndindex(6, 2, 3):
        assert shown[place(i, y, x, (2, 3), 3, 1)] == tiles[i, y, x]
    assert np.ma.getmaskarray(shown).sum() == shown.size - tiles.numel()  # gaps stay blank
    assert image.get_clim() == (-1, 1)
    assert image.get_interpolation() == "nearest"


def test_tiles_have_the_scale_that_is_asked_for_and_leave_out_what_is_no_number(ax):
    tiles = torch.tensor([[[0.5, float("nan")], [2.0, 3.0]]]).expand(2, 2, 2)
    image = plots.show_tiles(ax, tiles, columns=2, low=0.0, high=3.0)
    assert image.get_clim() == (0, 3)
    blank = np.ma.getmaskarray(image.get_array())
    assert blank[place(0, 0, 1, (2, 2), 2, 1)]
    assert not blank[place(1, 1, 1, (2, 2), 2, 1)]
