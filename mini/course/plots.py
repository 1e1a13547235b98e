"""One look for every figure: a role has one colour, dash and marker; labels stand on the lines.

Roles differ in colour, in dash and in marker, so that a figure survives a grey printer and a
projector.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor
from torch.nn.functional import pad

ROLES = {
    "baseline": {"color": "#6b6b6b", "linestyle": "--", "marker": "o"},
    "method": {"color": "#1f5fa8", "linestyle": "-", "marker": "s"},
    "control": {"color": "#d9730d", "linestyle": ":", "marker": "^"},
    "variant": {"color": "#5aa9d6", "linestyle": "-.", "marker": "D"},
    "rival": {"color": "#8c5a2b", "linestyle": (0, (3, 1, 1, 1)), "marker": "v"},
    "extra": {"color": "#9467bd", "linestyle": (0, (6, 1)), "marker": "P"},
    "other": {"color": "#3f8f5a", "linestyle": (0, (4, 1, 1, 1, 1, 1)), "marker": "X"},
}
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "lines.linewidth": 2.2,
    "lines.markersize": 6,
    "image.cmap": "viridis",
    "legend.frameon": False,
}


def use_style() -> None:
    """Set the course's matplotlib style for this process."""
    plt.rcParams.update(STYLE)


def figure(columns: int = 1, rows: int = 1, *, height: float = 3.6) -> tuple[Figure, np.ndarray]:
    """A figure 11 inches wide (a slide's width) and an array `[rows, columns]` of axes, flattened.

    `height` is that of one row, in inches.
    """
    fig, axes = plt.subplots(rows, columns, figsize=(11, height * rows), squeeze=False)
    return fig, axes.ravel()


def curve(
    ax: Axes,
    x: Sequence[float],
    values: np.ndarray,
    role: str,
    label: str,
    *,
    label_offset: float = 0.0,
) -> np.ndarray:
    """Draw the mean over seeds of `values` `[seeds, len(x)]`, the range of the seeds as a band.

    The label stands at the end of the line, moved up by `label_offset` points. Returns the mean.
    """
    values = np.asarray(values)
    mean = values.mean(axis=0)
    look = ROLES[role]
    ax.plot(x, mean, **look)
    ax.fill_between(
        x, values.min(axis=0), values.max(axis=0), color=look["color"], alpha=0.18, lw=0
    )
    ax.annotate(
        label,
        (x[-1], mean[-1]),
        xytext=(8, label_offset),
        textcoords="offset points",
        color=look["color"],
        va="center",
        annotation_clip=False,
    )
    return mean


def dots(
    ax: Axes,
    groups: dict[str, tuple[Sequence[float], str]],
    *,
    unit: str = "",
    column: bool = False,
) -> None:
    """One row per group of `{label: (values, role)}`: a dot a seed, a bar at the mean.

    The mean is written above its bar or, with `column`, at the right of the axes, for many rows.
    """
    for row, (values, role) in enumerate(groups.values()):
        look = ROLES[role]
        mean = float(np.mean(values))
        ax.plot(values, [row] * len(values), look["marker"], color=look["color"], alpha=0.55)
        ax.plot([mean, mean], [row - 0.22, row + 0.22], color=look["color"])
        text = f"{mean:.3f}{unit}"
        if column:
            place = {"transform": ax.get_yaxis_transform(), "va": "center"}
            ax.text(1.01, row, text, color=look["color"], **place)
        else:
            ax.annotate(text, (mean, row - 0.26), ha="center", va="bottom", color=look["color"])
    ax.set_yticks(range(len(groups)), list(groups))
    ax.set_ylim(len(groups) - 0.5, -0.75)
    ax.grid(axis="y", visible=False)


def show_images(ax: Axes, images: Tensor, *, columns: int, gap: int = 2) -> None:
    """Show `[N, 3, H, W]` (uint8, or float in [0, 1]) as one mosaic on white, row by row."""
    white = 1.0 if images.is_floating_point() else 255
    picture = mosaic(images.cpu(), columns, gap, white)
    ax.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_axis_off()


def show_tiles(
    ax: Axes, tiles: Tensor, *, columns: int, low: float = -1.0, high: float = 1.0
) -> AxesImage:
    """Show `[N, h, w]` numbers, `low` (dark) to `high` (bright), as a mosaic of N small maps.

    What is not a number stays white. Returns the image, for `fig.colorbar`.
    """
    picture = mosaic(tiles[:, None].cpu(), columns, 1, float("nan"))
    ax.set_axis_off()
    return ax.imshow(picture[0].numpy(), interpolation="nearest", vmin=low, vmax=high)


def mosaic(images: Tensor, columns: int, gap: int, filling: float) -> Tensor:
    """`[N, C, H, W]` row by row as one `[C, rows * (H + gap) + gap, columns * (W + gap) + gap]`.

    A single image is itself, without a gap around it. The same as torchvision's `make_grid`, whose
    import costs each notebook a second or two: it loads torch's whole compiler.
    """
    n, channels, height, width = images.shape
    if n == 1:
        return images[0]
    columns = min(columns, n)
    rows = -(-n // columns)
    tiles = images.new_full((rows * columns, channels, height + gap, width + gap), filling)
    tiles[:n, :, gap:, gap:] = images  # each with the gap above it and to its left
    tiles = tiles.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)  # [C, rows, H, columns, W]
    return pad(tiles.flatten(3, 4).flatten(1, 2), (0, gap, 0, gap), value=filling)
