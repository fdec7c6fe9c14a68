"""Figures of probing alone: the survey, the codebook, attention; the others are in :mod:`kdkit.lessons.plots`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kdkit.lessons.plots.layers import draw_confusion
from kdkit.lessons.plots.speech import TITLE_PAD, draw_phones
from kdkit.lessons.plots.style import BLUE, CYCLE, GREEN, GREY, HEAT, ORANGE, RED, ink, picture, styled
from kdkit.probing.clusters import Usage
from kdkit.probing.survey import Survey


@styled
def survey_figure(found: Survey, title: str = "") -> Figure:
    """Eight panels: probes, clusters, CKA (map, and curves with intervals); change, reach, codebook, confusion."""
    figure, grid = picture(20, 9.5, rows=2, columns=4)
    (curves, clusters, cka, likeness), (change, reach, codebook, confusion) = grid
    layers = range(len(found.phones.layers))
    for scores, label, colour in (
        (found.phones.layers, "phones", BLUE),
        (found.speakers[2:], "speakers", RED),
    ):
        if scores:
            rows = [(100 * s.accuracy, 100 * s.low, 100 * s.high) for s in scores]
            _curve(curves, layers, rows, colour, label)
    curves.axhline(100 * found.phones.fbank.accuracy, color=BLUE, linestyle="--", label="phones, Fbank")
    if found.speakers:
        curves.axhline(100 * found.speakers[0].accuracy, color=RED, linestyle="--", label="speakers, Fbank")
    curves.set(ylabel="frames (%)", title="Linear probes", ylim=(0, 100))
    for key, interval, label, colour in (
        ("pnmi", "interval", "PNMI", BLUE),
        ("phone_purity", "phone_purity_interval", "phone purity", GREEN),
        ("cluster_purity", "cluster_purity_interval", "cluster purity", ORANGE),
    ):
        rows = [(getattr(s, key), *getattr(s, interval)) for s in found.clusters[2:]]
        _curve(clusters, layers, rows, colour, label)
    clusters.set(ylabel="share (0 to 1)", title="k-means clusters", ylim=(0, 1))
    _draw_cka(cka, likeness, found)
    figure.colorbar(cka.images[0], ax=cka, shrink=0.8)
    for axes, rows, ylabel, name in (
        (change, found.change, "1 - cosine(input, output)", "Change of the input"),
        (reach, found.reach, "seconds", "Reach of attention"),
    ):
        value, error = _bars(rows)
        axes.bar(layers[1:], value, yerr=error, color=BLUE, ecolor=ink())
        axes.set(ylabel=ylabel, title=name, ylim=(0, None))
    reach.axhline(found.even_reach, color=GREY, linestyle="--", label="even attention")
    reach.set_ylim(0, 1.35 * max(found.even_reach, max(high for _, _, high in np.nan_to_num(found.reach))))
    for axes in (curves, clusters, likeness, change, reach):
        axes.set_xlabel("layer")
        axes.set_axisbelow(True)
        axes.grid(axis="y")
    for axes in (curves, clusters, likeness, reach):
        axes.legend(fontsize=9)
    if found.usage:
        _draw_usage(codebook, found.usage)
    else:
        codebook.axis("off")
        codebook.text(0.5, 0.5, "no codebook", ha="center")
    image = draw_confusion(confusion, found.phones.confusion, found.phones.phones, 6)
    confusion.set_title(f"Confusion in H{found.phones.best} (%)")
    figure.colorbar(image, ax=confusion, shrink=0.8)
    figure.suptitle(title)
    return figure


def _draw_cka(cka, likeness, found: Survey) -> None:
    """The map (with the other model, where there is one), and curves with intervals beside it."""
    values, columns, layers = found.cka, found.names, range(len(found.names) - 2)
    _curve(likeness, layers, found.cka[2:, 0], BLUE, "with Fbank + deltas")
    if found.other_cka is not None:
        values, columns = found.other_cka, found.other_names
        nearest = found.other_cka[2:, 2:, 0].argmax(1)
        rows = [found.other_cka[2 + layer, 2 + k] for layer, k in enumerate(nearest)]
        _curve(likeness, layers, rows, GREEN, "with its nearest layer of the other")
    else:
        best = found.phones.best
        _curve(likeness, layers, found.cka[2:, 2 + best], GREEN, f"with H{best}, best for phones")
    cka.imshow(values[..., 0], vmin=0, vmax=1, cmap=HEAT, origin="lower")
    cka.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    cka.set_yticks(range(len(found.names)), found.names, fontsize=8)
    cka.set(title="CKA" if found.other_cka is None else "CKA with the other model (across)")
    likeness.set(ylabel="CKA (0 to 1)", title="CKA of each layer", ylim=(0, 1.05))


def _curve(axes, layers: Sequence[int], rows: Sequence[Sequence[float]], colour: str, label: str) -> None:
    """A line through (value, low, high) of each layer, and the band of its intervals."""
    value, low, high = np.array(rows).T
    axes.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(layers, value, color=colour, marker="o", markersize=5, label=label)


def _bars(rows: Sequence[tuple[float, float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """(value, low, high) of each layer -> values, and what matplotlib wants of error bars."""
    value, low, high = np.array(rows).T
    return value, np.nan_to_num([value - low, high - value]).clip(0)


def _draw_usage(axes, usage: Sequence[Usage]) -> None:
    taus = [u.tau for u in usage]
    for key, colour, label in (
        ("choices", BLUE, "choices of a frame"),
        ("used", GREEN, "ids in use over all frames"),
    ):
        rows = [(getattr(u, key), *getattr(u, f"{key}_interval")) for u in usage]
        _curve(axes, taus, rows, colour, label)
    axes.set_xscale("log")
    axes.set_xticks(taus, [f"{tau:g}" for tau in taus])
    axes.minorticks_off()
    axes.set(xlabel="temperature", ylabel="ids (e to the entropy)", title="Codebook", ylim=(0, None))
    axes.legend(fontsize=9)


@styled
def usage_over_temperature(usage: Sequence[Usage], title: str = "") -> Figure:
    """How many ids a frame hesitates between, and how many are in use at all, over the temperature."""
    figure, [[axes]] = picture(8, 4)
    _draw_usage(axes, usage)
    axes.set_title(title)
    return figure


@styled
def attention_maps(weights, phones: Sequence[tuple[float, str]] = (), heads: Sequence[str] = ()) -> Figure:
    """Attention of one utterance: ``weights`` (maps, T, T), queries from bottom to top, keys from left to right."""
    weights = np.asarray(weights)
    figure, [panels] = picture(3.4 * len(weights) + 0.5, 3.9, columns=len(weights))
    end = 0.02 * weights.shape[-1]
    for k, (axes, one) in enumerate(zip(panels, weights, strict=True)):
        top = np.quantile(one, 0.995)
        axes.imshow(one, origin="lower", extent=(0, end, 0, end), cmap=HEAT, vmin=0, vmax=top)
        draw_phones(axes, phones, end, "white")
        axes.set_title(heads[k] if heads else f"head {k + 1}", pad=TITLE_PAD)
        axes.set_xlabel("looked at (s)")
    panels[0].set_ylabel("frame that looks (s)")
    return figure


@styled
def two_curves(scores: dict[str, Sequence], title: str = "") -> Figure:
    """Accuracies over layers with 95 % bands, {name: scores with accuracy, low and high, layer 0 first}."""
    figure, [[axes]] = picture(8, 4)
    for colour, (name, curve) in zip(CYCLE, scores.items(), strict=False):
        rows = [(100 * s.accuracy, 100 * s.low, 100 * s.high) for s in curve]
        _curve(axes, range(len(curve)), rows, colour, name)
    axes.set_xticks(range(len(curve)))
    axes.set(xlabel="layer (0 is the input of layer 1)", ylabel="frames (%)", title=title)
    axes.legend()
    axes.grid(axis="y")
    return figure
