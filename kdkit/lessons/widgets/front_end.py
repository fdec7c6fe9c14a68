"""Front-end lab (notebook 03): waveform, CNN and Fbank frame by frame; bins, window, masks; what a front-end knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from kdkit.fbank import Fbank
from kdkit.lessons import plots
from kdkit.lessons.plots.speech import draw_standardised
from kdkit.lessons.widgets import drawing
from kdkit.lessons.widgets.panel import Panel, choice, choice_of_utterance, player, slider
from kdkit.model.speech_model import SpeechModel
from kdkit.speech.audio import read_audio
from kdkit.speech.frames import HOP, RECEPTIVE_FIELD, SAMPLE_RATE, num_frames
from kdkit.speech.manifest import Utterance
from kdkit.teachers import Teacher


class FrontEndLab(Panel):
    """One utterance as waveform, CNN features and Fbank, aligned; a click picks a frame and shows what it has seen.

    ``bins`` and ``window`` (ms) remake the Fbank; ``band`` and ``span`` hide mel bins and Fbank frames
    around the chosen frame, as SpecAugment does at random. ``students``: {name: model}, whose front-ends are asked how
    much of the teacher's H^0 a linear map can read from them: the map is fitted on the other utterances.
    """

    title = "Front-end lab"

    def __init__(
        self,
        teacher: Teacher,
        utterances: Sequence[Utterance],
        students: Mapping[str, SpeechModel] | None = None,
    ):
        self.teacher, self.utterances = teacher, list(utterances)
        self.students = dict(students or {})
        self.waves = [read_audio(u.audio) for u in self.utterances]
        self._read: dict[tuple[str, int], np.ndarray] = {}
        self._fits: dict[tuple[str, int], tuple[np.ndarray, float]] = {}
        last = self._frames(self.waves[0]) - 1
        super().__init__(
            utterance=choice_of_utterance(self.utterances),
            frame=slider("frame", min(40, last), 0, last),
            bins=slider("mel bins", 80, 20, 128, 4),
            window=slider("window, ms", 25, 10, 60, 5),
            band=slider("mask, bins", 0, 0, 40),
            span=slider("mask, frames", 0, 0, 60),
            student=choice("front-end of", ["none", *self.students]),
        )
        for name in ("H0", *self.students) if self.students else ():  # a choice later need not wait
            for number in range(len(self.utterances)):
                self._output(name, number)

    @staticmethod
    def _frames(wave: Tensor) -> int:
        return num_frames(len(wave))

    def fbank(self) -> np.ndarray:
        """Log-mel energies (frames at 100 Hz, bins) with the chosen bins and window, masked."""
        values = _fbank(self.waves[self.state["utterance"]], self.state["bins"], self.state["window"]).copy()
        t, quiet = 2 * self.state["frame"], values.mean()
        if self.state["span"]:
            values[max(0, t - self.state["span"] // 2) : t + (self.state["span"] + 1) // 2] = quiet
        if self.state["band"]:
            low = (values.shape[1] - self.state["band"]) // 2
            values[:, max(0, low) : low + self.state["band"]] = quiet
        return values

    def cnn(self, utterance: int) -> np.ndarray:
        """The teacher's CNN features (T, channels)."""
        return self._output("CNN", utterance)

    def read_off(self, name: str) -> tuple[np.ndarray, float]:
        """How well a linear map reads H^0 off a front-end: the cosine of every frame (T,), and R^2 of the utterance."""
        key = (name, self.state["utterance"])
        if key not in self._fits:
            self._fits[key] = self._fit(*key)
        return self._fits[key]

    def _fit(self, name: str, chosen: int) -> tuple[np.ndarray, float]:
        others = [i for i in range(len(self.utterances)) if i != chosen] or [chosen]
        x, y = (np.concatenate([self._output(kind, i) for i in others]) for kind in (name, "H0"))
        centre_x, centre_y = x.mean(0), y.mean(0)
        gram = (x - centre_x).T @ (x - centre_x)
        ridge = 1e-2 * np.trace(gram) / len(gram) * np.eye(len(gram))
        weights = np.linalg.solve(gram + ridge, (x - centre_x).T @ (y - centre_y))
        wanted = self._output("H0", chosen)
        said = (self._output(name, chosen) - centre_x) @ weights + centre_y
        norms = np.linalg.norm(said, axis=1) * np.linalg.norm(wanted, axis=1)
        left = np.square(said - wanted).sum() / np.square(wanted - centre_y).sum()
        return (said * wanted).sum(1) / norms.clip(1e-9), float(1 - left)

    @torch.no_grad()
    def _output(self, name: str, utterance: int) -> np.ndarray:
        """Output of a front-end, of the teacher's CNN, or H^0: (T, D), computed once."""
        key = (name, utterance)
        if key not in self._read:
            wave = self.waves[utterance][None]
            lengths = torch.tensor([wave.shape[1]])
            if name in self.students:
                model = self.students[name]
                device = next(model.parameters()).device
                values = model.eval().front_end(wave.to(device), lengths.to(device))
            else:
                model = self.teacher.model
                device = next(model.parameters()).device
                wave, lengths = wave.to(device), lengths.to(device)
                if name == "CNN" and hasattr(model.front_end, "cnn"):
                    values = model.front_end.cnn(wave, lengths)
                else:
                    values = model(wave, lengths, depth=0).hidden[0]
            self._read[key] = values[0].double().cpu().numpy()
        return self._read[key]

    def seen(self) -> dict[str, tuple[float, float]]:
        """Stretches of sound (seconds) behind the chosen frame: of the CNN, and of the five Fbank windows that the
        convolution joins.
        """
        start = HOP * self.state["frame"] / SAMPLE_RATE
        windows = start - 0.02, start + 0.02 + self.state["window"] / 1000
        return {"Fbank and its convolution": windows, "CNN": (start, start + RECEPTIVE_FIELD / SAMPLE_RATE)}

    def changed(self, name: str) -> None:
        if name == "utterance":
            self.controls["frame"].max = self._frames(self.waves[self.state["utterance"]]) - 1

    def clicked(self, axes: int, x: float, y: float) -> None:
        last = self.controls["frame"].max
        self.update(frame=int(np.clip(round((x - 0.0125) / 0.02), 0, last)))

    def shape(self) -> bool:
        return self.state["student"] != "none"

    def layout(self) -> Figure:
        reading = self.shape()
        height = 6.4 if reading else 5.2
        figure = self.paper(height, height)
        ratios = (1.1, 2, 2, 1) if reading else (1.1, 2, 2)
        left, right = (0.16, 0.97) if self.narrow else (0.075, 0.985)
        grid = figure.add_gridspec(
            len(ratios), 1, height_ratios=ratios, left=left, right=right, top=0.94, bottom=0.08, hspace=0.14
        )
        labels = ("amplitude", "", "", "cosine to H0")
        *upper, last = (
            figure.add_subplot(place, ylabel=label) for place, label in zip(grid, labels, strict=False)
        )
        for axes in upper:
            axes.tick_params(labelbottom=False)
        for axes in figure.axes:
            drawing.place_labels(axes, 48)
        last.set_xlabel("time (s); click to choose a frame")
        if reading:
            last.set_ylim(-0.1, 1.05)
            last.grid(axis="y", alpha=0.3)
        return figure

    def draw(self, sound: Axes, cnn: Axes, fbank: Axes, *reading: Axes) -> None:
        chosen, t = self.state["utterance"], self.state["frame"]
        wave, phones = self.waves[chosen], self.utterances[chosen].phones
        end = len(wave) / SAMPLE_RATE
        sound.plot(np.arange(0, len(wave), 4) / SAMPLE_RATE, wave[::4], color=plots.GREY, linewidth=0.5)
        for (name, (low, high)), colour in zip(self.seen().items(), (plots.ORANGE, plots.RED), strict=True):
            low, high = max(0, low), min(end, high)
            sound.axvspan(low, high, facecolor=(colour, 0.4), edgecolor=colour, label=f"{name} sees")
        sound.set_xlim(0, end)
        sound.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.95), ncols=2)
        draw_standardised(cnn, self.cnn(chosen), "CNN channel", phones)
        drawing.draw_fbank(fbank, self.fbank(), (), self.state["window"])
        for axes in reading:
            cosine, _ = self.read_off(self.state["student"])
            axes.plot(0.0125 + 0.02 * np.arange(len(cosine)), cosine, color=plots.BLUE)
        for axes in (cnn, fbank, *reading):
            axes.set_xlim(0, end)
            drawing.draw_cursor(axes, 0.0125 + 0.02 * t)

    def words(self) -> str:
        wave, t = self.waves[self.state["utterance"]], self.state["frame"]
        window = 16 * self.state["window"]
        windows = 1 + (len(wave) - window) // 160
        frames = (windows - 1) // 2 + 1
        place = f"the middle of the one numbered {t} at {20 * t + self.state['window'] / 2:.1f} ms"
        lines = [
            f"<b>frame {t}</b> of 0 to {self._frames(wave) - 1}: its middle is at {20 * t + 12.5:.1f} ms. Fbank makes "
            f"{windows} windows of {self.state['window']} ms, a convolution of stride 2 makes {frames} "
            f"frames of them, {place if t < frames else f'the last of them number {frames - 1}'}."
        ]
        if self.state["student"] != "none":
            _, share = self.read_off(self.state["student"])
            lines.append(
                f"A linear map (fitted on the other utterances) reads {100 * share:.0f} % of the variance of the "
                f"teacher's H0 from the front-end of {self.state['student']}."
            )
        return "<br>".join(lines) + player(wave)

    def alt(self) -> str:
        return (
            f"Front-end lab: “{self.utterances[self.state['utterance']].text}” as waveform, CNN features and Fbank "
            f"({self.state['bins']} bins, {self.state['window']} ms), frame {self.state['frame']} marked."
        )


@lru_cache(maxsize=64)
def _fbank(wave: Tensor, bins: int, window: int) -> np.ndarray:
    return Fbank(bins, window * SAMPLE_RATE // 1000)(wave[None])[0].numpy()
