"""What is written can be read and what is drawn can be seen, on light and on dark paper (WCAG 2: 4.5:1 and 3:1)."""

import re
from itertools import combinations

import numpy as np
import pytest
from contrast import MARK, TEXT, contrast, linear
from pygments.styles import get_style_by_name

from kdkit.lessons.plots import CYCLE, FILLS
from kdkit.lessons.plots.style import DARK_INK, DARK_PAPER, INK, ON_DARK, ON_LIGHT, PAPER, theme
from kdkit.report.index_page import TEMPLATES


def test_contrast_is_that_of_the_guidelines():
    assert contrast("white", "black") == pytest.approx(21) and contrast("red", "red") == 1
    assert contrast("#777777", "white") == pytest.approx(4.48, abs=0.01)  # their example of what just fails


def test_marks_and_words_of_figures_in_both_themes():
    for colour in CYCLE:
        assert min(contrast(colour, PAPER), contrast(colour, DARK_PAPER)) >= MARK, colour
    for ink, paper in ((INK, PAPER), (DARK_INK, DARK_PAPER), (ON_LIGHT, PAPER), (ON_DARK, DARK_PAPER)):
        assert contrast(ink, paper) >= TEXT, (ink, paper)
    assert all(contrast("black", fill) >= TEXT for fill in FILLS)
    for dark in (False, True):
        settings = theme(dark)
        assert contrast(settings["text.color"], settings["axes.facecolor"]) >= TEXT


# What the eye makes of red, green and blue without one kind of cones (Machado, Oliveira, Fernandes 2009, severity 1).
BLIND = {
    "red": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}


def lab(light: np.ndarray) -> np.ndarray:
    """CIE L*a*b*, in which distances are those that an eye sees."""
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    xyz = np.array(to_xyz) @ light.clip(0, 1) / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array((116 * y - 16, 500 * (x - y), 200 * (y - z)))


@pytest.mark.parametrize("cones", sorted(BLIND))
def test_colour_blind_readers_can_tell_the_marks_apart(cones):
    seen = {colour: lab(np.array(BLIND[cones]) @ linear(colour)) for colour in CYCLE}
    for one, other in combinations(CYCLE, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 10, (one, other)


def test_words_and_marks_of_the_report():
    css = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--(\w+): (#\w+)", css[: css.index("}")]))
    for paper in (colours["paper"], colours["wash"]):
        for name in ("ink", "soft", "blue", "orange", "grey"):
            assert contrast(colours[name], paper) >= TEXT, name
        for name in ("teacher", "distilled", "scratch", "baseline"):
            assert contrast(colours[name], paper) >= MARK, name
    words = re.findall(r"[;{ ]color: (#\w+)", css) + [
        colours[name]
        for name in re.findall(r"[;{ ]color: var\(--(\w+)\)", css)
        if name not in ("teacher", "distilled", "scratch", "baseline")
    ]
    assert len(words) > 10 and all(contrast(colour, colours["wash"]) >= TEXT for colour in words)
    code = {f"#{style['color']}" for _, style in get_style_by_name("default") if style["color"]}
    faint = {colour for colour in code if contrast(colour, colours["paper"]) < TEXT}
    assert faint <= {"#bbbbbb"}, "blanks may be faint"
