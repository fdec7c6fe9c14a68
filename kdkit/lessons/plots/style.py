"""How all figures look: colours, sizes, and a Figure that shows itself."""

from __future__ import annotations

import io
from functools import wraps

import matplotlib
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, SKY, PINK, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000",
)  # fmt: skip
CYCLE = (BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK)
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


class Picture(Figure):
    """A Figure that a notebook shows by itself: made without pyplot, it is freed when nobody holds it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight", facecolor="white")
        return buffer.getvalue()


def styled(draw):
    """Decorator of a function that draws in the kit's style."""

    @wraps(draw)
    def in_style(*args, **options) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **options)

    return in_style


def picture(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """(figure, axes (rows, columns)); sizes in inches."""
    figure = Picture(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)
