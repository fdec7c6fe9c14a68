"""Parts of pictures that widgets put together: each draws into empty axes that it is given.

Redraws have to be fast, and text takes longest: few ticks, and titles and labels at fixed places (matplotlib would
measure every tick label to find one).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.colors import ListedColormap, to_rgb

from kdkit.lessons.plots.speech import FRAME_CENTRE, draw_frames, draw_phones
from kdkit.lessons.plots.style import BLUE, FILLS, GREY, HEAT, NEUTRAL, RED
from kdkit.recognition.transcribe import Word

_FILL_MAP = ListedColormap(FILLS)


def place_labels(axes, left: float, below: float = 21) -> None:
    """Puts the labels of axes at a fixed distance in points, beyond the longest tick label."""
    width, height = 72 * axes.figure.get_size_inches() * axes.get_position().size
    axes.xaxis.set_label_coords(0.5, -below / height)
    axes.yaxis.set_label_coords(-left / width, 0.5)


def wipe(axes) -> None:
    """Removes everything that was drawn into axes; ticks, limits, labels and title stay."""
    axes.set_axis_on()
    for kind in ("containers", "lines", "patches", "collections", "images", "texts"):
        for artist in list(getattr(axes, kind)):
            artist.remove()
    if legend := axes.get_legend():
        legend.remove()
    axes.set_prop_cycle(None)
    axes.relim()


def draw_ids(axes, ids, frames: int, label: str = "") -> None:
    """Cluster ids (frames,) as a strip of colours, a new colour where the id changes; None says that there are none."""
    end = 0.02 * frames + 0.005
    axes.set(xlim=(0, end), ylim=(-0.5, 0.5), yticks=[])
    axes.set_xlabel(f"time (s); ids: {label}" if label else "time (s)")
    axes.set_ylabel("" if ids is None else "ids")
    if ids is None:
        axes.text(end / 2, 0, "no clusters of this layer", ha="center", va="center", fontsize=9)
        return
    colours = {int(k): i % len(FILLS) for i, k in enumerate(dict.fromkeys(np.asarray(ids).tolist()))}
    strip = np.array([[colours[int(k)] for k in ids]])
    extent = (0.0025, end, -0.5, 0.5)
    axes.imshow(
        strip,
        aspect="auto",
        extent=extent,
        cmap=_FILL_MAP,
        vmin=0,
        vmax=len(FILLS) - 1,
        interpolation="nearest",
    )
    changes = [0, *(t for t in range(1, len(ids)) if ids[t] != ids[t - 1]), len(ids)]
    axes.vlines(0.0025 + 0.02 * np.array(changes[1:-1]), -0.5, 0.5, color="black", linewidth=0.6)
    for begin, stop in pairwise(changes):
        if stop - begin >= 3:
            middle = 0.0025 + 0.01 * (begin + stop)
            axes.text(middle, 0, str(ids[begin]), ha="center", va="center", fontsize=7, color="black")


def draw_attention(axes, weights) -> None:
    """One head's (T, T) weights: frames that look from bottom to top, what they look at from left to right."""
    weights = np.asarray(weights)
    end = 0.02 * len(weights)
    top = np.quantile(weights, 0.995)
    axes.imshow(weights, origin="lower", extent=(0, end, 0, end), cmap=HEAT, vmin=0, vmax=top, aspect="auto")
    axes.locator_params(nbins=4)
    axes.set_xlabel("looked at (s)")
    axes.set_ylabel("looks (s)")


def draw_accuracy(axes, probe, layer: int) -> None:
    """The probe's curve over layers, ``layer`` marked, Fbank + deltas dashed."""
    low, value, high = (
        100 * np.array([getattr(s, k) for s in probe.layers]) for k in ("low", "accuracy", "high")
    )
    layers = [*range(len(value))]  # a polygon: fill_between takes ten times as long
    axes.fill(layers + layers[::-1], [*low, *high[::-1]], color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(value, color=BLUE, linewidth=1.5)
    axes.plot(layer, value[layer], "o", color=RED, markersize=9)
    end = layer > 0.8 * len(value)  # where a label in the middle would leave the axes
    axes.annotate(f"{value[layer]:.1f} %", (layer, value[layer]), xytext=(7 if end else 0, 9),
                  textcoords="offset points", ha="right" if end else "center", fontsize=9)  # fmt: skip
    axes.axhline(100 * probe.fbank.accuracy, color=GREY, linestyle="--", linewidth=1)
    axes.set(xlabel="layer", xlim=(-0.7, len(value) - 0.3))
    axes.set_title("phone probe (% of frames)", fontsize=9, y=1.0)
    axes.margins(y=0.35)
    axes.locator_params(nbins=5)
    axes.grid(axis="y", alpha=0.3)


def draw_fbank(axes, features, phones: Sequence[tuple[float, str]] = (), window: float = 25) -> None:
    """Fbank (frames at 100 Hz, bins) of windows of so many ms, with the phones."""
    draw_frames(axes, features, 0.01, "mel bin", centre=window / 2000)
    draw_phones(axes, phones, FRAME_CENTRE + 0.01 * len(features), "white")


def draw_cursor(axes, seconds: float) -> None:
    """A line at the middle of the chosen frame, with white edges that part it from a dark picture."""
    axes.axvline(seconds, color="white", linewidth=4)
    axes.axvline(seconds, color=RED, linewidth=2)


def draw_words(axes, words: Sequence[Word], fontsize: float) -> None:
    """Words from their start to their end, in a colour that says neither right nor wrong; the less sure, the paler."""
    for word in words:
        colour = 1 - (0.2 + 0.8 * word.score) * (1 - np.array(to_rgb(NEUTRAL)))
        axes.axvspan(word.start, word.end, facecolor=colour, edgecolor=GREY)
        behind = {"facecolor": colour, "edgecolor": "none", "pad": 1}  # a short word is wider than its time
        axes.text((word.start + word.end) / 2, 0.5, word.word, ha="center", va="center", fontsize=fontsize,
                  color="black", bbox=behind)  # fmt: skip


def say(axes, words: str) -> None:
    """Words where there is nothing to draw, instead of axes."""
    axes.set_axis_off()
    axes.set_title("")
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center")
