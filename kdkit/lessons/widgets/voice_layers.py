"""Your voice in every layer (notebook 01): how near it comes to a synthetic voice that says the same words."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdkit.fbank import Fbank
from kdkit.lessons import plots
from kdkit.lessons.plots.speech import draw_standardised
from kdkit.lessons.widgets import drawing
from kdkit.lessons.widgets.own_voice import OwnVoice, Said
from kdkit.lessons.widgets.panel import slider
from kdkit.probing.warping import along, frame_similarity, warp
from kdkit.speech.frames import num_frames
from kdkit.teachers import Teacher

OTHERS = ("please send judy the smooth book", "no soup after eleven", "the garden is full of mice")
_FBANK = -3  # its place on the axis of layers
_HARDLY = 0.02  # cosine


class VoiceLayers(OwnVoice):
    """Two voices, one text, layer by layer.

    Frames are compared by their cosine (:func:`kdkit.probing.warping.frame_similarity`), along the path that fits best,
    and in the same way with two other texts (:data:`OTHERS`) of the synthetic voice. ``same`` and ``other`` are the
    means along these paths in Fbank and H^0 to H^L, arrays (2 + L,). Phones of a recording are those of the synthetic
    voice, carried over along the path of the feature with the widest gap.
    """

    title = "Your voice in the layers"

    def __init__(self, teacher: Teacher, text: str, folder: str | Path):
        self.teacher, self._fbank = teacher, Fbank()
        self.names = ["Fbank", *(f"H{layer}" for layer in range(teacher.config.layers + 1))]
        super().__init__(
            text, folder, layer=slider("layer", teacher.config.layers // 2, 0, teacher.config.layers)
        )

    def features(self, said: Said) -> list[np.ndarray]:
        """Fbank at 50 Hz and H^0 to H^L of a voice, each (T, D)."""
        device = next(self.teacher.model.parameters()).device
        with torch.no_grad():
            waves = said.wave[None].to(device)
            hidden = self.teacher.hidden(waves, torch.tensor([waves.shape[1]], device=device)).hidden
            fbank = self._fbank(said.wave[None])[0, : 2 * num_frames(len(said.wave)) : 2]
        return [fbank.numpy(), *(h[0].float().cpu().numpy() for h in hidden)]

    def listen(self) -> None:
        self.own_states, self.synthetic_states = self.features(self.own), self.features(self.synthetic)
        pairs = list(zip(self.own_states, self.synthetic_states, strict=True))
        self.similarity = [frame_similarity(*pair) for pair in pairs]  # (T, S) each
        self.paths = [warp(s) for s in self.similarity]
        self.same = np.array([along(s, p) for s, p in zip(self.similarity, self.paths, strict=True)])
        others = [text for text in OTHERS if text != self.text][:2]
        self.other = np.mean([self._to_other(text) for text in others], 0)
        self.widest = int(np.argmax(self.same - self.other))

    def _to_other(self, text: str) -> list[float]:
        """How near the own voice comes to the synthetic one saying another text: a number for each feature."""
        states = self.features(self._say(text, self.state["voice"]))
        found = (frame_similarity(*pair) for pair in zip(self.own_states, states, strict=True))
        return [along(s, warp(s)) for s in found]

    def own_phones(self) -> list[tuple[float, str]]:
        """Phones of the own voice: its own where they are known, else the synthetic ones along the path."""
        if self.own.phones:
            return list(self.own.phones)
        path = self.paths[self.widest]
        at = np.searchsorted(path[:, 1], [start / 0.02 for start, _ in self.synthetic.phones])
        frames = path[at.clip(max=len(path) - 1), 0]
        return [(0.02 * int(t), symbol) for t, (_, symbol) in zip(frames, self.synthetic.phones, strict=True)]

    def layout(self) -> Figure:
        figure = self.paper(5.6, 7.6)
        if self.narrow:  # the comparison under the two voices instead of beside them
            grid = figure.add_gridspec(
                2, 1, height_ratios=(1.4, 1), left=0.13, right=0.97, top=0.95, bottom=0.07, hspace=0.3
            )
            voices, (pairs, curves) = grid[0], grid[1].subgridspec(1, 2, wspace=0.35)
        else:
            voices, pairs, curves = figure.add_gridspec(
                1, 3, width_ratios=(2.3, 1.5, 1.5), left=0.035, right=0.985, top=0.91, bottom=0.1, wspace=0.22
            )
        own, synthetic = voices.subgridspec(2, 1, hspace=0.4 if self.narrow else 0.28)
        for place, left in ((own, 8), (synthetic, 8), (pairs, 30), (curves, 30)):
            drawing.place_labels(figure.add_subplot(place), left)
        _, low, pairs, curves = figure.axes
        low.set_xlabel("time (s)")
        pairs.set_title("cosine, frame by frame", fontsize=10)
        curves.set_title("mean cosine along the path", fontsize=10)
        layers = len(self.names) - 1
        places = range(0, layers, max(1, (layers - 1) // 4))
        curves.set(xlabel="layer", xlim=(_FBANK - 1, layers - 0.3))
        curves.set_xticks([_FBANK, *places], ["Fbank", *map(str, places)], fontsize=9)
        curves.grid(axis="y", alpha=0.3)
        return figure

    def draw(self, own: Axes, synthetic: Axes, pairs: Axes, curves: Axes) -> None:
        number = 1 + self.state["layer"]
        draw_standardised(own, self.own_states[number], self.own.who, self.own_phones())
        draw_standardised(synthetic, self.synthetic_states[number], self.synthetic.who, self.synthetic.phones)
        for axes in (own, synthetic):
            axes.yaxis.label.set_fontsize(9)
        similarity, path = self.similarity[number], self.paths[number]
        end = [0.02 * n for n in similarity.shape]
        pairs.imshow(
            similarity, origin="lower", extent=(0, end[1], 0, end[0]), cmap=plots.HEAT, vmin=-0.2, vmax=1, aspect="auto"
        )  # fmt: skip
        pairs.plot(0.02 * path[:, 1] + 0.01, 0.02 * path[:, 0] + 0.01, color=plots.RED, linewidth=1.2)
        pairs.set(xlabel=f"{self.synthetic.who} (s)", ylabel=f"{self.own.who} (s)")
        for values, form, colour, label in (
            (self.same, "o-", plots.BLUE, "same words"),
            (self.other, "s--", plots.ORANGE, "other words"),
        ):
            curves.plot(values[1:], form, color=colour, label=label, markersize=4)
            curves.plot(_FBANK, values[0], form, color=colour, markersize=4)
        layer, here = self.state["layer"], self.same[number]
        curves.plot(layer, here, "o", color=plots.RED, markersize=9)
        curves.annotate(f"{here:.2f}", (layer, here), xytext=(0, 9), textcoords="offset points",
                        ha="center", fontsize=9)  # fmt: skip
        curves.set_ylim(min(0, self.other.min()) - 0.05, 1.05)
        curves.legend(fontsize=9, loc="upper right")

    def sentence(self) -> str:
        gap, last = self.same - self.other, self.names[-1]
        change = gap[-1] - gap[1]
        course = "hardly changes" if abs(change) < _HARDLY else "grows" if change > 0 else "shrinks"
        who = self.own.who[0].upper() + self.own.who[1:]
        return (
            f"{who} and {self.synthetic.who} in H0: cosine {self.same[1]:.2f} for the same words, {self.other[1]:.2f} "
            f"for other words, a difference of {gap[1]:+.2f}. Fbank has {gap[0]:+.2f}. From H0 to {last} the "
            f"difference {course}, to {gap[-1]:+.2f}; it is widest in {self.names[self.widest]}."
        )

    def words(self) -> str:
        number = 1 + self.state["layer"]
        here = (
            f"<b>{self.names[number]}</b>: cosine {self.same[number]:.2f} for the same words, "
            f"{self.other[number]:.2f} for other words."
        )
        whose = "" if self.own.phones else " Phones over your voice are carried over from the synthetic one."
        return f"{here}<br>{escape(self.sentence())}{whose}{self.players()}"

    def alt(self) -> str:
        number = 1 + self.state["layer"]
        return (
            f"{self.title}: “{self.text}” by {self.own.who} and {self.synthetic.who} in {self.names[number]}: mean "
            f"cosine along the best path {self.same[number]:.2f}, for other words {self.other[number]:.2f}."
        )
