"""How all figures look: colours, sizes, and a Figure that shows itself."""

from __future__ import annotations

import io
from functools import partial, wraps

import matplotlib
import numpy as np
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

BLUE, ORANGE, GREEN, RED, PINK, SKY, GREY = CYCLE = (  # marks: a contrast of 3:1 on light and on dark paper
    "#006FB0", "#C27F00", "#00A070", "#C0302A", "#CC79A7", "#4A98DC", "#646464",
)  # fmt: skip
# behind black text, whatever the paper
FILLS = "#9AD0F5", "#F2C14E", "#7FD6B6", "#F0E442", "#E9B4D2", "#FF9B7A"
NEUTRAL = "#A9B6C4"  # a fill that stands for no kind of thing, behind black text
INK, PAPER, DARK_INK, DARK_PAPER = "#1d2530", "#ffffff", "#e4e7eb", "#111111"
ON_LIGHT, ON_DARK = "#a34e00", "#f0a050"
WRONG = f"light-dark({ON_LIGHT}, {ON_DARK})"  # CSS: the colour of wrong words
HEAT = "cividis"  # even in lightness for every kind of colour vision
STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.dpi": 100,
    "hatch.linewidth": 0.8,
}


def theme(dark: bool = False) -> dict[str, str]:
    """Matplotlib's settings for light or dark paper; colours of marks are the same on both."""
    ink, paper = (DARK_INK, DARK_PAPER) if dark else (INK, PAPER)
    inked = (
        "text.color",
        "axes.edgecolor",
        "axes.labelcolor",
        "axes.titlecolor",
        "xtick.color",
        "ytick.color",
    )
    on_paper = ("figure.facecolor", "axes.facecolor", "legend.facecolor")
    return (
        dict.fromkeys(inked, ink)
        | dict.fromkeys(on_paper, paper)
        | {"grid.color": "#808080", "legend.framealpha": 1.0}
    )


def ink() -> str:
    """The colour of text on the paper that is drawn on now."""
    return matplotlib.rcParams["text.color"]


def paper() -> str:
    """The colour of the paper that is drawn on now."""
    return matplotlib.rcParams["figure.facecolor"]


def faint() -> str:
    """The colour of what stays behind the marks, such as a grid."""
    return matplotlib.rcParams["grid.color"]


class Picture(Figure):
    """A Figure that a notebook shows by itself: made without pyplot, it is freed when nobody holds it."""

    def in_the_dark(self) -> Picture:
        """The same for a dark page, drawn anew where it was drawn by a function that is :func:`styled`."""
        return self

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


def in_numbers(figure: Figure, longest: int = 600) -> str:
    """A figure as text: ends and highest point of every labelled curve, lengths of bars, ranges of images."""
    texts = []
    for axes in figure.axes:
        found = [_curve_in_numbers(line) for line in axes.get_lines() if not line.get_label().startswith("_")]
        for bars in axes.containers:
            if isinstance(bars, BarContainer) and len(bars) <= 12:
                wide = bars.orientation == "horizontal"
                found.append(
                    "bars " + ", ".join(f"{b.get_width() if wide else b.get_height():.3g}" for b in bars)
                )
        for values in (image.get_array() for image in axes.images):
            found.append(
                f"{values.shape[0]} by {values.shape[1]} values from {values.min():.3g} to {values.max():.3g}"
            )
        if found:
            texts.append(f"{axes.get_title() or axes.get_ylabel() or 'picture'}: {'; '.join(found)}.")
    text = " ".join(" ".join(texts).split())
    return text if len(text) <= longest else f"{text[:longest]} ..."


def _curve_in_numbers(line: Line2D) -> str:
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    if not len(y) or np.ptp(y) == 0:
        return f"{line.get_label()} {y[0]:.3g}" if len(y) else f"{line.get_label()}: nothing"
    top = int(np.nanargmax(y))
    ends = f"from {y[0]:.3g} at {x[0]:g} to {y[-1]:.3g} at {x[-1]:g}"
    return f"{line.get_label()} {ends}, highest {y[top]:.3g} at {x[top]:g}"


def styled(draw):
    """Decorator of a function that draws a :class:`Picture` in the kit's style: on white, and when asked on dark."""

    @wraps(draw)
    def in_style(*args, **options) -> Picture:
        def on(paper: dict) -> Picture:
            with matplotlib.rc_context(STYLE | paper):
                return draw(*args, **options)

        figure = on({})
        figure.in_the_dark = partial(on, theme(dark=True))
        return figure

    return in_style


def picture(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """(figure, axes (rows, columns)); sizes in inches."""
    figure = Picture(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)
