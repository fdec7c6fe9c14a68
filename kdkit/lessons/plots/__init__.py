"""Figures of the lessons and the report: plain data in, a matplotlib Figure out, nothing shown or kept.

Times are in seconds, rates come in as shares (0.23) and are drawn in per cent. Colours are Okabe and Ito's,
which colour-blind readers can tell apart; where two things must never be mixed up (shipped against trained
in this run), a hatch tells too. ``phones`` is what a manifest holds: (start in seconds, symbol) pairs, ""
being silence.
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
from kdkit.lessons.plots.style import BLACK, BLUE, CYCLE, GREEN, HEAT, ORANGE, PINK, RED, SKY, YELLOW, Picture
from kdkit.lessons.plots.systems import (
    speed_bars,
    training_curves,
    wer_bars,
    wer_over_minutes,
    wer_points,
)

__all__ = [
    "BLACK",
    "BLUE",
    "CYCLE",
    "GREEN",
    "HEAT",
    "ORANGE",
    "PINK",
    "RED",
    "SKY",
    "YELLOW",
    "Picture",
    "aligned_features",
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
    "wer_over_minutes",
    "wer_points",
]
