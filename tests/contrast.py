"""Contrast as the Web Content Accessibility Guidelines (WCAG 2) define it, and panels that keep to it."""

from itertools import product

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from kdkit.lessons.plots.style import DARK_PAPER, PAPER
from kdkit.lessons.widgets.panel import NARROW, WIDE

TEXT, MARK = 4.5, 3.0


def linear(colour: str) -> np.ndarray:
    """Red, green and blue as amounts of light, 0 to 1."""
    values = np.array(to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    dark, light = sorted(linear(colour) @ (0.2126, 0.7152, 0.0722) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def assert_readable(panel):
    """Wide or narrow, light or dark: words have a contrast of 4.5:1, and lines beside pictures one of 3:1; every slider
    and list has a name."""
    for panel.narrow, panel.dark in product((False, True), repeat=2):
        figure, paper = panel.figure(), DARK_PAPER if panel.dark else PAPER
        assert figure.get_figwidth() == (NARROW if panel.narrow else WIDE)
        for text in figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text()):
            black_on_colour = text.get_color() == "black"
            assert black_on_colour or contrast(text.get_color(), paper) >= TEXT, (text, panel.dark)
        lines = [line for axes in figure.axes if not axes.images for line in axes.lines]
        faint = [
            line for line in lines if line.get_color() != "white" and contrast(line.get_color(), paper) < 3
        ]
        assert faint == [], panel.dark
    panel.narrow = panel.dark = False
    assert all(control.description for control in panel.controls.values())
