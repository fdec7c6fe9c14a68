"""What the layers of a model hold: probes, clusters, change, likeness, confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kdkit.lessons.plots.style import BLUE, CYCLE, GREEN, GREY, HEAT, ORANGE, RED, ink, picture, styled
from kdkit.speech.phone_classes import by_class, phone_class


@styled
def layer_curve(probes, title: str = "A linear probe on every layer, unseen voices") -> Figure:
    """Phone accuracy over layers with 95 % bands, and Fbank + deltas as the line to beat.

    ``probes``: a :class:`kdkit.probing.PhoneProbe`, or several by name, {"teacher": probe, "student":
    probe}; models of different depth are drawn over relative depth.
    """
    probes = probes if isinstance(probes, Mapping) else {"hidden states": probes}
    depths = {len(probe.layers) for probe in probes.values()}
    figure, [[axes]] = picture(8, 4.5)
    for colour, (name, probe) in zip(CYCLE, probes.items(), strict=False):
        x = np.arange(len(probe.layers)) / (1 if len(depths) == 1 else len(probe.layers) - 1)
        low, mean, high = (
            100 * np.array([getattr(s, k) for s in probe.layers]) for k in ("low", "accuracy", "high")
        )
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(x, mean, color=colour, marker="o", label=name)
        axes.plot(x[probe.best], mean[probe.best], marker="*", markersize=16, color=colour)
    fbank = probe.fbank  # the same for all: it depends on the frames only
    axes.axhspan(100 * fbank.low, 100 * fbank.high, color="0.5", alpha=0.2, linewidth=0)
    axes.axhline(100 * fbank.accuracy, color=GREY, linestyle="--", label="Fbank + deltas")
    if len(probes) == 1:
        axes.axhline(100 * probe.front_end.accuracy, color=ORANGE, linestyle=":", label="front-end output")
    true = np.asarray(probe.confusion).sum(1)  # frames of each phone
    axes.axhline(100 * true.max() / max(1, true.sum()), color="0.55", label="chance: the most frequent phone")
    if len(depths) == 1:
        axes.set_xticks(range(depths.pop()))
    same = "layer (0 is the input of layer 1)"
    axes.set(xlabel=same if axes.get_xlim()[1] > 1.5 else "relative depth (0 input, 1 last layer)")
    axes.set(ylabel="frames with the right phone (%)", title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(axis="y")
    return figure


_INTERVALS = {
    "pnmi": "interval",
    "phone_purity": "phone_purity_interval",
    "speaker_nmi": "speaker_interval",
}


@styled
def cluster_curve(scores, title: str = "k-means clusters of every layer against phones") -> Figure:
    """PNMI, phone purity and the speakers' share over layers, from :func:`kdkit.probing.layer_pnmi`.

    Fbank + deltas, if among the scores, is the dashed line. Bands are 95 % intervals over utterances.
    """
    figure, [[axes]] = picture(8, 4.5)
    layers = [s for s in scores if s.name.startswith("H")]
    curves = (
        ("pnmi", "PNMI (phones)", BLUE),
        ("phone_purity", "phone purity", GREEN),
        ("speaker_nmi", "the same for speakers", RED),
    )
    for key, label, colour in curves:
        axes.plot([getattr(s, key) for s in layers], color=colour, marker="o", label=label)
        low, high = np.array([getattr(s, _INTERVALS[key]) for s in layers]).T
        axes.fill_between(range(len(layers)), low, high, color=colour, alpha=0.2, linewidth=0)
    for s in scores:
        if s.name.startswith("Fbank"):
            axes.axhline(s.pnmi, color=BLUE, linestyle="--", label="PNMI of Fbank + deltas")
    axes.set_xticks(range(len(layers)))
    axes.set(xlabel="layer (0 is the input of layer 1)", ylabel="share (0 to 1)", ylim=(0, None), title=title)
    axes.legend()
    axes.grid(axis="y")
    return figure


@styled
def layer_change(
    rows: Sequence[tuple[float, float, float]], title: str = "How much each layer changes its input"
) -> Figure:
    """Bars of :func:`kdkit.probing.layer_changes` (value, low, high), layer 1 first."""
    figure, [[axes]] = picture(8, 3.2)
    change, low, high = np.array(rows).T
    axes.bar(
        range(1, len(change) + 1),
        change,
        yerr=[change - low, high - change],
        color=BLUE,
        ecolor=ink(),
        capsize=3,
    )
    axes.set_xticks(range(1, len(change) + 1))
    axes.set(xlabel="layer", ylabel="1 - cosine(input, output)", title=title)
    return figure


@styled
def cka_map(
    values,
    rows: Sequence[str],
    columns: Sequence[str] | None = None,
    title: str = "Linear CKA between layers",
) -> Figure:
    """Similarity 0..1 of every layer (``rows``) with every layer (``columns``, default the same)."""
    columns = rows if columns is None else columns
    figure, [[axes]] = picture(0.36 * len(columns) + 3, 0.36 * len(rows) + 2)
    image = axes.imshow(np.asarray(values), vmin=0, vmax=1, cmap=HEAT, origin="lower")
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    figure.colorbar(image, ax=axes, label="CKA (1: same up to rotation and scale)")
    axes.set(xlabel="layer", ylabel="layer", title=title)
    return figure


@styled
def confusion(counts, phones: Sequence[str], title: str = "Which phone is taken for which") -> Figure:
    """Confusion matrix (true, predicted) of a phone probe, phones ordered by class; rows are divided by their sums."""
    size = 0.19 * len(phones) + 2
    figure, [[axes]] = picture(size + 1, size)
    image = draw_confusion(axes, counts, phones, 9)
    figure.colorbar(image, ax=axes, label="frames of the true phone (%)", shrink=0.8)
    axes.set_title(title)
    return figure


def draw_confusion(axes, counts, phones: Sequence[str], fontsize: float):
    """The matrix of :func:`confusion` into axes that are given; returns the image."""
    counts = np.asarray(counts, dtype=float)
    order = by_class(phones)
    counts, phones = counts[np.ix_(order, order)], [phones[i] for i in order]
    borders = [i for i in range(1, len(phones)) if phone_class(phones[i]) != phone_class(phones[i - 1])]
    shares = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    image = axes.imshow(shares, cmap=HEAT, vmin=0, vmax=100)
    for border in borders:
        axes.axhline(border - 0.5, color="white", linewidth=0.6)
        axes.axvline(border - 0.5, color="white", linewidth=0.6)
    axes.set_xticks(range(len(phones)), phones, fontsize=fontsize, rotation=90)
    axes.set_yticks(range(len(phones)), phones, fontsize=fontsize)
    axes.set(xlabel="predicted phone", ylabel="true phone")
    return image
