"""Student designer (notebook 02): sliders for a structure; its parameters, MACs and latency beside a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.polynomial import Polynomial

from kdkit.lessons import plots
from kdkit.lessons.widgets import drawing
from kdkit.lessons.widgets.panel import Panel, button, choice, slider
from kdkit.model.costs import count_macs, measure_latency
from kdkit.model.speech_model import ModelConfig, SpeechModel, parameter_count, preset
from kdkit.speech.frames import SAMPLE_RATE, num_frames

OWN = "my own"


@dataclass(frozen=True)
class Measured:
    """Median seconds of a preset for one utterance, and what they say of any structure."""

    seconds: float  # of audio
    times: dict[str, float]

    def estimate(self, config: ModelConfig) -> float:
        """Seconds for an utterance: MACs at the speed of the measured preset with the same front-end and nearest MACs.

        A guess: thin layers reach a smaller share of the processor's speed than wide ones.
        """
        like = {name: t for name, t in self.times.items() if preset(name).front_end == config.front_end}
        work = macs(config)
        nearest = min(like, key=lambda name: abs(np.log(macs(preset(name)) / work)))
        return like[nearest] * work / macs(preset(nearest))


_SECONDS = 5  # of audio, for MACs and latency
_PATIENCE = 0.04  # seconds for the rounds of a measurement


def macs(config: ModelConfig) -> float:
    """The result of :func:`kdkit.model.costs.count_macs`, fast enough for a slider: only parts are counted again."""
    thin = _as_wide(replace(config, layers=1, ffn=32, heads=1), config.pos_groups)
    return float(_macs_beside_layers(thin)(config.dim)) + config.layers * _macs_of_layer(config)


def _as_wide(config: ModelConfig, dim: int) -> ModelConfig:
    """Another width, the same share of it in the first convolution of Fbank."""
    return replace(config, dim=dim, fbank_channels=config.fbank_channels * dim // config.dim)


def _macs_of_layer(config: ModelConfig) -> float:
    frames = num_frames(SAMPLE_RATE * _SECONDS)
    return frames * (4 * config.dim**2 + 2 * config.dim * config.ffn + 2 * frames * config.dim) / _SECONDS


@lru_cache(maxsize=64)
def _macs_beside_layers(thin: ModelConfig) -> Polynomial:
    """Front-end and positions: a parabola over the width, through three widths that are counted."""
    some = [_as_wide(thin, times * thin.dim) for times in (1, 2, 3)]
    counts = [count_macs(config, seconds=_SECONDS) - _macs_of_layer(config) for config in some]
    return Polynomial.fit([config.dim for config in some], counts, deg=2)


class StudentDesigner(Panel):
    """Depth, width, FFN, heads and front-end of a student, and what they cost.

    ``config`` is the structure shown, ``taken`` the one that "take this student" has handed on to the notebook (None:
    nobody has). ``budget``: parameters not to exceed, drawn as a line. ``teacher``: the preset whose size is the
    measure. Width moves in steps of the positional convolution's groups, and the heads are those that divide it.
    Latency is estimated from the presets' (timed once, when the panel is made) until the button measures the structure
    itself.
    """

    title = "Student designer"

    def __init__(
        self, budget: int, start: str = "tiny-dt-fbank", teacher: str = "tiny-teacher", rounds: int = 3
    ):
        first = preset(start)
        self.scale = "tiny-" if start.startswith("tiny") else ""
        self.budget, self.teacher, self.like, self.rounds = budget, teacher, first, max(1, rounds)
        self.presets = [f"{self.scale}{kind}-{end}" for kind in ("dt", "sw") for end in ("waveform", "fbank")]
        models = {name: SpeechModel(preset(name)).eval() for name in self.presets}
        times = measure_latency(models, _SECONDS, self.rounds)
        self.measured = Measured(_SECONDS, {name: float(np.median(spent)) for name, spent in times.items()})
        self.own_times: dict[ModelConfig, float] = {}
        self.taken: ModelConfig | None = None
        widest, step = preset(teacher).dim, first.pos_groups
        super().__init__(
            preset=choice("preset", [OWN, *self.presets], start),
            layers=slider("depth", first.layers, 1, 12),
            dim=slider("width", first.dim, step, widest, step),
            ffn=slider("FFN", first.ffn, 32, 4 * widest, 32),
            heads=choice("heads", _divisors(first.dim), first.heads),
            front_end=choice("front-end", ["waveform", "fbank"], first.front_end),
        )

    @property
    def config(self) -> ModelConfig:
        """The structure chosen."""
        chosen = {name: self.state[name] for name in ("layers", "dim", "ffn", "heads", "front_end")}
        like = preset(f"{self.scale}dt-{chosen['front_end']}")
        if like.fbank_channels:
            chosen["fbank_channels"] = chosen["dim"] // 2  # as in the presets
        return replace(like, **chosen)

    def changed(self, name: str) -> None:
        """Keeps the controls in step: a preset sets all of them, a width has its own numbers of heads."""
        if name == "preset" and self.state["preset"] != OWN:
            wanted = preset(self.state["preset"])
            self._heads_for(wanted.dim, wanted.heads)
            for key in ("layers", "dim", "ffn", "heads", "front_end"):
                self.controls[key].value = getattr(wanted, key)
        elif name == "dim":
            size = self.like.dim / self.like.heads
            divisors = _divisors(self.state["dim"])
            self._heads_for(self.state["dim"], min(divisors, key=lambda h: abs(self.state["dim"] / h - size)))
        if name != "preset":
            same = [p for p in self.presets if preset(p) == self.config]
            self.controls["preset"].value = same[0] if same else OWN

    def _heads_for(self, dim: int, heads: int) -> None:
        self.controls["heads"].options = _divisors(dim)
        self.controls["heads"].value = heads

    def update(self, **state) -> StudentDesigner:
        """Width before heads: the heads there are depend on it."""
        order = sorted(state, key=lambda name: (name != "preset", name != "dim"))
        super().update(**{name: state[name] for name in order})
        return self

    def extra(self) -> list:
        return [
            button("measure latency", self.measure, "Times this structure here and now."),
            button("take this student", self.take, "Hands it on to the notebook, which trains it."),
        ]

    def take(self) -> ModelConfig:
        """Hands the structure that is shown on: from now on it is ``taken``."""
        self.taken = self.config
        self.redraw()
        return self.taken

    def measure(self) -> float:
        """Seconds of the chosen structure for one utterance of 5 s; fewer rounds for a slow one, as somebody waits."""
        config, (estimate, _) = self.config, self.latency(self.config)
        rounds = max(1, min(self.rounds, round(_PATIENCE / estimate)))
        times = measure_latency({"it": SpeechModel(config).eval()}, self.measured.seconds, rounds)
        self.own_times[config] = float(np.median(times["it"]))
        self.redraw()
        return self.own_times[config]

    def latency(self, config: ModelConfig) -> tuple[float, bool]:
        """Seconds for an utterance, and whether they were measured."""
        for name, spent in self.measured.times.items():
            if preset(name) == config:
                return spent, True
        if config in self.own_times:
            return self.own_times[config], True
        return self.measured.estimate(config), False

    def facts(self) -> dict[str, float]:
        """Parameters, share of the teacher's, MACs per second of audio, seconds for an utterance."""
        seconds, measured = self.latency(self.config)
        size = parameters(self.config)
        return {
            "parameters": size,
            "share of teacher": size / parameters(preset(self.teacher)),
            "macs": macs(self.config),
            "seconds": seconds,
            "measured": measured,
        }

    def layout(self) -> Figure:
        figure = self.paper(3.6, 6.0)
        if self.narrow:
            grid = figure.add_gridspec(2, 1, left=0.17, right=0.97, top=0.94, bottom=0.1, hspace=0.65)
            places = (*grid[0].subgridspec(1, 2, wspace=0.55), grid[1])
        else:
            places = figure.add_gridspec(1, 3, left=0.07, right=0.985, top=0.86, bottom=0.17, wspace=0.3)
        left, middle, right = (figure.add_subplot(place, xlabel="parameters (million)") for place in places)
        left.set_ylabel("GMAC for 1 s of audio")
        middle.set_ylabel(f"ms for {self.measured.seconds:g} s of audio")
        for axes in (left, middle):
            axes.grid(alpha=0.3)
        for axes in (left, middle, right):
            drawing.place_labels(axes, 42)
        left.set_title(f"dashed: budget of {self.budget / 1e6:.2f} M", fontsize=10, y=1.0)
        right.set_title("where they are", fontsize=10, y=1.0)
        right.invert_yaxis()
        return figure

    def draw(self, left: Axes, middle: Axes, right: Axes) -> None:
        configs = {name: preset(name) for name in self.presets} | {OWN: self.config}
        sizes = [parameters(config) / 1e6 for config in configs.values()]
        for axes, values in (
            (left, [macs(config) / 1e9 for config in configs.values()]),
            (middle, [1e3 * self.latency(config)[0] for config in configs.values()]),
        ):
            for (name, config), size, value in zip(configs.items(), sizes, values, strict=True):
                colour = plots.BLUE if config.front_end == "waveform" else plots.ORANGE
                marker, area = "^" if config.layers > 4 else "s", 8
                if name == OWN:
                    colour, marker, area = plots.RED, "*", 17
                # over the legend
                axes.plot(size, value, marker, color=colour, markersize=area, label=name, zorder=6)
            axes.axvline(self.budget / 1e6, color=plots.GREY, linestyle="--", linewidth=1)
            axes.set(xlim=(0, 1.15 * max(*sizes, self.budget / 1e6)), ylim=(0, 1.15 * max(values)))
        words = "measured" if self.facts()["measured"] else "estimated"
        middle.set_title(f"latency, yours {words}", fontsize=10, y=1.0)
        if self.narrow:
            left.legend(fontsize=7, loc="upper left", bbox_to_anchor=(-0.4, -0.22), ncols=3, markerscale=0.7)
        else:
            left.legend(fontsize=7, loc="lower left", markerscale=0.7)
        names, counts = zip(*parts(self.config).items(), strict=True)
        right.barh(range(len(names)), [count / 1e6 for count in counts], color=plots.BLUE)
        right.set_yticks(range(len(names)), names, fontsize=9)

    def words(self) -> str:
        facts = self.facts()
        over = facts["parameters"] - self.budget
        verdict = (
            f"{over / 1e6:.2f} M over the budget" if over > 0 else f"{-over / 1e6:.2f} M under the budget"
        )
        how = "measured" if facts["measured"] else "estimated"
        return (
            f"<b>{facts['parameters'] / 1e6:.2f} M parameters</b> ({100 * facts['share of teacher']:.0f} % of "
            f"{self.teacher}), {verdict}; {facts['macs'] / 1e9:.3f} GMAC for a second of audio; "
            f"{1e3 * facts['seconds']:.0f} ms for {self.measured.seconds:g} s ({how}). The heads, "
            f"{self.config.heads} of {self.config.dim // self.config.heads} dimensions, share the width: their number "
            f"changes neither parameters nor MACs.{self._taken()}"
        )

    def _taken(self) -> str:
        if self.taken is None:
            return ""
        if self.taken == self.config:
            return " <b>Taken: this one.</b>"
        return f" Taken: {in_short(self.taken)}, not the one that is shown."

    def alt(self) -> str:
        facts = self.facts()
        return (
            f"Student designer: {in_short(self.config)}: "
            f"{facts['parameters'] / 1e6:.2f} M parameters, {facts['macs'] / 1e9:.3f} GMAC per second."
        )


def in_short(config: ModelConfig) -> str:
    """ "12 layers of width 96, FFN 384, 3 heads, fbank"."""
    c = config
    return f"{c.layers} layers of width {c.dim}, FFN {c.ffn}, {c.heads} heads, {c.front_end}"


def parameters(config: ModelConfig) -> int:
    """What :func:`kdkit.model.costs.count_parameters` gives, from :func:`parts`."""
    return sum(parts(config).values())


@lru_cache(maxsize=512)
def parts(config: ModelConfig) -> dict[str, int]:
    """Parameters by part: front-end, positions, attention, FFN, norms. One layer is built, all are alike."""
    with torch.device("meta"):
        model = SpeechModel(replace(config, layers=1))
    (layer,) = model.encoder.layers
    attention, ffn = (
        parameter_count(layer.attention),
        sum(map(parameter_count, (layer.ffn_in, layer.ffn_out))),
    )
    norms = parameter_count(layer) - attention - ffn
    positions = parameter_count(model.encoder.positions)
    return {
        "front-end": parameter_count(model.front_end),
        "positions": positions,
        "attention": config.layers * attention,
        "FFN": config.layers * ffn,
        "norms": config.layers * norms + parameter_count(model.encoder) - parameter_count(layer) - positions,
    }


def _divisors(dim: int) -> list[int]:
    """Numbers of heads that divide the width, with heads of at least 8."""
    return [h for h in range(1, dim // 8 + 1) if dim % h == 0]
