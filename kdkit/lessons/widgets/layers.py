"""Layer explorer (notebook 01): one utterance in one layer, or in two; sound, phones, ids, attention, accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from kdkit.common.wording import between
from kdkit.lessons.plots.speech import draw_standardised
from kdkit.lessons.widgets import drawing
from kdkit.lessons.widgets.panel import Panel, choice, choice_of_utterance, player, slider
from kdkit.probing.activations import Frames
from kdkit.probing.attention import watched_attention
from kdkit.probing.cka import linear_cka
from kdkit.probing.phones import PhoneProbe
from kdkit.speech.audio import read_audio
from kdkit.speech.manifest import Utterance
from kdkit.teachers import Teacher


@dataclass(frozen=True)
class _Seen:
    """One utterance through one model."""

    hidden: list[np.ndarray]  # H^0 .. H^L, each (T, D)
    attention: list[Callable[[], Tensor]]  # of layers 1 .. L: gives (heads, T, T)
    ids: np.ndarray | None  # (T,) of the teacher's codebook


def _see(teacher: Teacher, utterance: Utterance) -> _Seen:
    wave = read_audio(utterance.audio)
    device = next(teacher.model.parameters()).device
    with torch.no_grad(), watched_attention(teacher.model) as attention:
        output = teacher.hidden(wave[None].to(device), torch.tensor([len(wave)], device=device))
        book = teacher.codebook
        ids = None if book is None else book(output.last[0]).argmax(-1).cpu().numpy()
    return _Seen([h[0].float().cpu().numpy() for h in output.hidden], attention, ids)


class LayerExplorer(Panel):
    """What does a layer make of an utterance?

    ``models``: {name: Teacher} (a student too, as ``Teacher(model, None, name, {})``). ``probes``: {name: PhoneProbe},
    for the curve. ``frames``: {name: Frames}, of which every layer's clusters are made (k-means, ``clusters`` ids).
    The second picture is of ``other`` at layer ``other_layer``; "none" leaves it out.
    """

    title = "Layer explorer"

    def __init__(
        self,
        models: Mapping[str, Teacher],
        utterances: Sequence[Utterance],
        probes: Mapping[str, PhoneProbe] | None = None,
        frames: Mapping[str, Frames] | None = None,
        clusters: int = 50,
    ):
        self.models, self.utterances = dict(models), list(utterances)
        self.probes = dict(probes or {})
        self._seen = {  # all: no wait later
            name: [_see(model, utterance) for utterance in self.utterances]
            for name, model in self.models.items()
        }
        self._ids: dict[tuple[str, int], list[np.ndarray]] = {}  # of every utterance
        for name in self.models.keys() & (frames or {}).keys():
            for layer, hidden in enumerate(zip(*(seen.hidden for seen in self._seen[name]), strict=True)):
                x = np.asarray(frames[name].features[2 + layer], dtype=np.float32)
                codes = _quick_kmeans(clusters, x)
                self._ids[name, layer] = [codes.predict(states) for states in hidden]
        layers = min(model.config.layers for model in self.models.values())
        heads = min(model.config.heads for model in self.models.values())
        names = list(self.models)
        super().__init__(
            utterance=choice_of_utterance(self.utterances),
            model=choice("model", names),
            layer=slider("layer", layers // 2, 0, layers),
            other=choice("compare", ["none", *names], "none"),
            other_layer=slider("its layer", layers, 0, layers),
            head=slider("head", 1, 1, heads),
        )

    def seen(self, model: str, utterance: int) -> _Seen:
        """Hidden states, attention and codebook ids."""
        return self._seen[model][utterance]

    def ids(self, model: str, layer: int) -> tuple[str, np.ndarray | None]:
        """Cluster ids (T,) of the present utterance, and whose they are: k-means of that layer, or the codebook."""
        if (model, layer) in self._ids:
            return f"k-means of H{layer}", self._ids[model, layer][self.state["utterance"]]
        seen = self.seen(model, self.state["utterance"])
        if layer == len(seen.hidden) - 1 and seen.ids is not None:
            return "codebook", seen.ids
        return "", None

    def shown(self) -> list[tuple[str, int]]:
        """(model, layer) of each of the one or two pictures."""
        pairs = [(self.state["model"], self.state["layer"])]
        if self.state["other"] != "none":
            pairs.append((self.state["other"], self.state["other_layer"]))
        return pairs

    def shape(self) -> int:
        return len(self.shown())

    def idle(self) -> set[str]:
        alone = self.state["other"] == "none"
        nobody_looks = not any(layer for _, layer in self.shown())  # H0 has no heads
        return {name for name, off in (("other_layer", alone), ("head", nobody_looks)) if off}

    def layout(self) -> Figure:
        rows, narrow = self.shape(), self.narrow
        figure = self.paper(0.5 + 3.2 * rows, 0.5 + 4.6 * rows)
        edge = 0.5 / figure.get_figheight()
        outer = figure.add_gridspec(
            rows, 1, left=0.08 if narrow else 0.04, right=0.97 if narrow else 0.985, top=1 - edge, bottom=edge,
            hspace=0.25 if narrow else 0.5,
        )  # fmt: skip
        for row in range(rows):
            if narrow:  # attention and curve under the picture instead of beside it
                parts = outer[row].subgridspec(2, 1, height_ratios=(2.2, 1.8), hspace=0.45)
                main, (looks, curve) = parts[0], parts[1].subgridspec(1, 2, wspace=0.3)
            else:
                main, looks, curve = outer[row].subgridspec(1, 3, width_ratios=(3.4, 1.15, 1.25), wspace=0.22)
            strip = main.subgridspec(2, 1, height_ratios=(5, 1), hspace=0.08)
            for place, left in ((strip[0], 8), (strip[1], 8), (looks, 30), (curve, 30)):
                axes = figure.add_subplot(place)
                axes.yaxis.label.set_fontsize(9)
                drawing.place_labels(axes, left)
            figure.axes[4 * row].tick_params(labelbottom=False)
        return figure

    def draw(self, *axes: Axes) -> None:
        utterance = self.utterances[self.state["utterance"]]
        for row, (model, layer) in enumerate(self.shown()):
            states, strip, looks, curve = axes[4 * row : 4 * row + 4]
            seen = self.seen(model, self.state["utterance"])
            label = f"{model} H{layer}"
            draw_standardised(states, seen.hidden[layer], label, utterance.phones, names=row == 0)
            whose, ids = self.ids(model, layer)
            drawing.draw_ids(strip, ids, len(seen.hidden[layer]), whose)
            if layer:
                weights = seen.attention[layer - 1]()
                head = min(self.state["head"], len(weights)) - 1
                drawing.draw_attention(looks, weights[head])
                looks.set_title(f"attention, head {head + 1}", fontsize=9, y=1.0)
            else:
                drawing.say(looks, "H0 is the input:\nno attention yet")
            if model in self.probes:
                drawing.draw_accuracy(curve, self.probes[model], layer)
            else:
                drawing.say(curve, "not probed")

    def likeness(self) -> float | None:
        """Linear CKA of the two layers on this utterance's frames, None where only one is shown."""
        pairs = self.shown()
        if len(pairs) < 2:
            return None
        x, y = (self.seen(model, self.state["utterance"]).hidden[layer] for model, layer in pairs)
        return linear_cka(x.astype(np.float64), y.astype(np.float64))

    def accuracy(self, model: str, layer: int) -> str:
        """What the probe says of a layer, in words."""
        if model not in self.probes:
            return "not probed"
        score = self.probes[model].layers[layer]
        return (
            f"a linear probe reads {100 * score.accuracy:.1f} %{between((score.low, score.high), 'share')} "
            "of the frames of unseen voices"
        )

    def words(self) -> str:
        utterance = self.utterances[self.state["utterance"]]
        lines = [f"<b>{escape(m)} H{layer}</b>: {self.accuracy(m, layer)}." for m, layer in self.shown()]
        if (cka := self.likeness()) is not None:
            lines.append(f"CKA of the two on this utterance: {cka:.2f} (few frames make it look large).")
        lines.append(f"“{escape(utterance.text)}”")
        return "<br>".join(lines) + player(read_audio(utterance.audio))

    def alt(self) -> str:
        utterance = self.utterances[self.state["utterance"]]
        shown = " and ".join(
            f"{model} H{layer} ({self.accuracy(model, layer)})" for model, layer in self.shown()
        )
        return f"Layer explorer: “{utterance.text}” in {shown}, with phones, cluster ids and attention."


def _quick_kmeans(clusters: int, x: np.ndarray) -> MiniBatchKMeans:
    """Clusters of at most 4,000 of the frames (N, D), in a hundredth of a second, for a picture that must not wait."""
    some = x[:: max(1, len(x) // 4000)]
    return MiniBatchKMeans(clusters, init="random", n_init=1, max_iter=5, random_state=0).fit(some)
