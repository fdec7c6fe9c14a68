"""Figures: every axis is named, what is drawn is what was given, nothing is left behind in pyplot."""

import re
import sys

import numpy as np
import pytest
from contrast import MARK, TEXT, contrast
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from kdkit.common.errors import ConfigError
from kdkit.common.statistics import Comparison
from kdkit.lessons import plots
from kdkit.lessons.plots.page import image_html
from kdkit.lessons.plots.style import DARK_PAPER, in_numbers
from kdkit.probing import ClusterScore, LayerScore, PhoneProbe
from kdkit.speech.text import VOCABULARY

RNG = np.random.default_rng(0)
PHONES = ((0.0, ""), (0.1, "h"), (0.2, "aɪ"), (0.4, ""))
WAVE = RNG.normal(size=8000)
LOG = [{"step": s, "loss": 1 / s, "l1": 2 / s} for s in range(10, 110, 10)] + [{"step": 100, "wer": 0.4}]
SYSTEMS = [
    {"name": "teacher", "wer": {"test-clean": (0.1, 0.08, 0.12), "test-other": (0.3,)}, "source": "shipped"},
    {"name": "scratch", "wer": {"test-clean": (1.1, 1.0, 1.2)}},
]


def probe(layers: int = 4) -> PhoneProbe:
    scores = [LayerScore(f"H{i}", 0.6 + 0.02 * i, 0.58 + 0.02 * i, 0.62 + 0.02 * i) for i in range(layers)]
    front, fbank = LayerScore("front-end", 0.5, 0.4, 0.6), LayerScore("Fbank + deltas", 0.55, 0.5, 0.6)
    return PhoneProbe(
        tuple(scores), front, fbank, ("a", "b"), np.eye(2), 10, 5, 2, Comparison(0.05, (0.0, 0.1))
    )


CLUSTERS = [ClusterScore(name, 0.4, 0.5, 0.2, 0.1) for name in ("Fbank + deltas", "front-end", "H0", "H1")]
FIGURES = {
    "waveform": lambda: plots.waveform(WAVE, PHONES, "hi"),
    "spectrogram": lambda: plots.spectrogram(RNG.normal(size=(48, 80)), PHONES),
    "aligned_features": lambda: plots.aligned_features(
        WAVE, RNG.normal(size=(24, 8)), RNG.normal(size=(48, 80)), PHONES
    ),
    "emissions": lambda: plots.emissions(RNG.random((24, len(VOCABULARY))), VOCABULARY, PHONES),
    "layer_curve": lambda: plots.layer_curve(probe()),
    "layer_curve of two": lambda: plots.layer_curve({"teacher": probe(), "student": probe(3)}),
    "cluster_curve": lambda: plots.cluster_curve(CLUSTERS),
    "layer_change": lambda: plots.layer_change([(0.1, 0.05, 0.2), (0.3, 0.2, 0.4)]),
    "cka_map": lambda: plots.cka_map(RNG.random((3, 2)), ["H0", "H1", "H2"], ["S0", "S1"]),
    "confusion": lambda: plots.confusion([[8, 2], [0, 0]], ["a", "ʃ"]),
    "training_curves": lambda: plots.training_curves(LOG, ("loss", "wer")),
    "training_curves of two": lambda: plots.training_curves({"a": LOG, "b": LOG[:3]}, ("loss", "l1")),
    "wer_bars": lambda: plots.wer_bars(SYSTEMS),
    "hidden_states": lambda: plots.hidden_states(
        {"H0": RNG.normal(size=(24, 8)), "H1": RNG.normal(size=(24, 8))}
    ),
    "frame_alignment": lambda: plots.frame_alignment(),
    "speed_bars": lambda: plots.speed_bars(
        {"a": {"fp32": (1, 2, 3), "int8": (2, 4, 5)}, "b": {"fp32": (9, 10, 11)}}
    ),
    "mel_filters": lambda: plots.mel_filters(RNG.random((257, 20))),
    "wer_curves": lambda: plots.wer_curves({"x": [(10, 0.5, 0.4, 0.6), (1, 0.9, 0.8, 1.0)]}),
    "change_curves": lambda: plots.change_curves(
        {"x": [(800, 0.01, 0.0, 0.02), (200, -0.02, -0.03, -0.01)], "y": [(200, 0.0, -0.01, 0.01)]},
        "base",
        "phone accuracy",
        "steps",
    ),
    "wer_points": lambda: plots.wer_points(
        [
            {"name": "x", "value": 0.6, "interval": (0.5, 0.7)},
            {"name": "y", "value": 0.5, "interval": (0.4, 0.6)},
        ],
        ("twin", 0.45, (0.4, 0.5)),
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_named_and_the_picture_can_be_drawn(name):
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    png = figure._repr_png_()  # raises on a glyph or layout that does not work
    assert len(in_numbers(figure)) <= 604
    assert png.startswith(b"\x89PNG")
    assert len(png) > 5000
    panels = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    for line in (
        line for axes in panels for line in axes.get_lines() if not line.get_label().startswith("_")
    ):
        assert contrast(line.get_color(), "white") >= MARK, f"{line.get_label()} is too pale to be seen"
    for axes in panels:
        below = any(other.get_xlabel() for other in panels)
        beside = any(other.get_ylabel() or other.get_yticklabels() for other in panels)
        assert axes.get_xlabel() or below
        assert axes.get_ylabel() or beside
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums(), "nothing is registered in pyplot"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_the_same_on_a_dark_page(name):
    figure = FIGURES[name]()
    dark = figure.in_the_dark()
    assert in_numbers(dark) == in_numbers(figure)
    assert to_hex(dark.get_facecolor()) == DARK_PAPER and to_hex(figure.get_facecolor()) == "#ffffff"
    for text in dark.findobj(lambda artist: isinstance(artist, Text) and artist.get_text()):
        on_a_fill = name == "frame_alignment" and text.get_text().isdigit()
        assert contrast(text.get_color(), "#9AD0F5" if on_a_fill else DARK_PAPER) >= TEXT, text
    for line in (line for axes in dark.axes if not axes.images for line in axes.get_lines()):
        assert line.get_color() == "white" or contrast(line.get_color(), DARK_PAPER) >= MARK, line


def test_a_page_shows_the_picture_of_its_theme():
    html = image_html(b"light", 'a "curve"', b"dark")
    (key,) = re.findall(
        r'<img class="([\w-]+)" src="data:image/png;base64,bGlnaHQ=" alt="a &quot;curve', html
    )
    assert f'[data-jp-theme-light="false"] .{key}' in html
    assert "{ content: url(data:image/png;base64,ZGFyaw==) }" in html
    assert "style>" not in image_html(b"light", "a curve"), "one picture is for every page"


def test_layer_curve_draws_accuracies_in_per_cent_and_the_baseline():
    axes = plots.layer_curve(probe()).axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert drawn["hidden states"] == pytest.approx([60, 62, 64, 66])
    assert drawn["Fbank + deltas"] == pytest.approx([55, 55])
    assert "layer" in axes.get_xlabel()
    assert "%" in axes.get_ylabel()
    assert "relative depth" in FIGURES["layer_curve of two"]().axes[0].get_xlabel()


def test_shipped_systems_are_hatched_and_the_legend_says_so():
    axes = plots.wer_bars(SYSTEMS).axes[0]
    assert [bool(bar.get_hatch()) for bar in axes.patches] == [True, True, False]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([10, 30, 110])
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["test-clean", "test-other", "trained in this run", "shipped with the kit"]


def test_frames_of_50_and_100_hz_line_up():
    figure = FIGURES["aligned_features"]()
    cnn, fbank = (axes.images[0] for axes in figure.axes[1:3])
    # 24 frames at 50 Hz, the first centred at 12.5 ms; 48 at 100 Hz, the first centred there too
    assert cnn.get_extent()[:2] == pytest.approx((0.0025, 0.4825))
    assert fbank.get_extent()[:2] == pytest.approx((0.0075, 0.4875))


def test_confusion_rows_are_shares_and_an_empty_row_is_zero():
    axes = FIGURES["confusion"]().axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ʃ", "a"]  # fricatives before vowels
    assert axes.images[0].get_array().tolist() == [[0, 0], [20, 80]]


def test_a_figure_is_described_by_its_numbers():
    said = in_numbers(FIGURES["layer_curve"]())
    best = probe().layers[probe().best]
    assert (
        f"highest {100 * best.accuracy:.3g} at {probe().best}" in said
        and "chance: the most frequent phone" in said
    )
    assert "values from 0 to 80" in in_numbers(FIGURES["confusion"]())
    assert in_numbers(FIGURES["layer_change"]()) == "How much each layer changes its input: bars 0.1, 0.3."
    assert in_numbers(FIGURES["waveform"]()) == ""


def test_training_curves_pass_over_rows_without_the_key():
    figure = FIGURES["training_curves"]()
    assert [len(axes.get_lines()[0].get_xdata()) for axes in figure.axes] == [10, 1]


@pytest.mark.parametrize(
    ("logs", "said"),
    [
        ({}, "the training has logged nothing"),
        ({"a": LOG, "b": []}, "the training b has logged nothing"),
        ({"a": LOG}, r"no step has logged 'blanks' \(but step, loss, "),
    ],
)
def test_a_curve_without_points_is_an_error_in_words(logs, said):
    with pytest.raises(ConfigError, match=f"no curve to draw: .*{said}.* goes on when it is run again"):
        plots.training_curves(logs, ("loss", "blanks"))


def test_speech_without_phone_times_is_drawn_too():
    for figure in (
        plots.waveform(WAVE),
        plots.spectrogram(np.zeros((48, 80))),
        plots.emissions(np.eye(4), "-abc"),
    ):
        assert figure.axes[0].get_xlim()[0] == 0
        assert not figure.axes[0].texts


def test_phone_names_are_written_once_and_silence_is_not():
    axes = FIGURES["waveform"]().axes[0]
    assert [text.get_text() for text in axes.texts] == ["h", "aɪ"]
