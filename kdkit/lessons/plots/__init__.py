"""Figures of the lessons and the report: plain data in, a matplotlib Figure out, nothing shown or kept.

Times are in seconds, rates come in as shares (0.23) and are drawn in per cent. Colours follow Okabe and Ito's, which
colour-blind readers can tell apart, darkened where they are too pale on white paper; where two things must never be
mixed up (shipped against trained in this run), a hatch tells too. ``phones`` is what a manifest holds: (start in
seconds, symbol) pairs, "" being silence.
"""

from kdkit.lessons.plots.layers import cka_map, cluster_curve, confusion, layer_change, layer_curve
from kdkit.lessons.plots.speech import (
    aligned_features,
    draw_frames,
    draw_phones,
    draw_wave,
    emissions,
    frame_alignment,
    hidden_states,
    mel_filters,
    spectrogram,
    waveform,
)
from kdkit.lessons.plots.style import BLUE, CYCLE, FILLS, GREEN, GREY, HEAT, ORANGE, PINK, RED, SKY, Picture
from kdkit.lessons.plots.systems import (
    change_curves,
    speed_bars,
    training_curves,
    wer_bars,
    wer_curves,
    wer_points,
)

__all__ = [
    "BLUE",
    "CYCLE",
    "FILLS",
    "GREEN",
    "GREY",
    "HEAT",
    "ORANGE",
    "PINK",
    "RED",
    "SKY",
    "Picture",
    "aligned_features",
    "change_curves",
    "cka_map",
    "cluster_curve",
    "confusion",
    "draw_frames",
    "draw_phones",
    "draw_wave",
    "emissions",
    "frame_alignment",
    "hidden_states",
    "layer_change",
    "layer_curve",
    "mel_filters",
    "spectrogram",
    "speed_bars",
    "training_curves",
    "waveform",
    "wer_bars",
    "wer_curves",
    "wer_points",
]
