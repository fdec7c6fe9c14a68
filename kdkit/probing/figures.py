"""Figures that only probing draws; the others are in :mod:`kdkit.plots`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kdkit.plots import BLUE, CYCLE, GREEN, HEAT, ORANGE, RED, _picture, _styled
from kdkit.probing.clusters import Usage
from kdkit.probing.survey import Survey


@_styled
def survey_figure(found: Survey, title: str = "") -> Figure:
    """Six panels: phones and speakers, clusters, CKA, change and reach, codebook or other model, confusion."""
    figure, grid = _picture(15, 9, rows=2, columns=3)
    layers = range(len(found.phones.layers))
    curves, clusters, cka, change, sixth, confusion = grid.flat
    for scores, label, colour in (
        (found.phones.layers, "phones", BLUE),
        (found.speakers[2:], "speakers", RED),
    ):
        if not scores:
            continue
        low, value, high = (
            100 * np.array([getattr(s, k) for s in scores]) for k in ("low", "accuracy", "high")
        )
        curves.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)
        curves.plot(layers, value, color=colour, marker="o", label=label)
    curves.axhline(100 * found.phones.fbank.accuracy, color=BLUE, linestyle="--", label="phones, Fbank")
    if found.speakers:
        curves.axhline(100 * found.speakers[0].accuracy, color=RED, linestyle="--", label="speakers, Fbank")
    curves.set(ylabel="frames (%)", title="Linear probes", ylim=(0, 100))
    scores = found.clusters[2:]
    low, high = np.array([s.interval for s in scores]).T
    clusters.fill_between(layers, low, high, color=BLUE, alpha=0.2, linewidth=0)
    for key, label, colour in (
        ("pnmi", "PNMI", BLUE),
        ("phone_purity", "phone purity", GREEN),
        ("cluster_purity", "cluster purity", ORANGE),
    ):
        clusters.plot(layers, [getattr(s, key) for s in scores], color=colour, marker="o", label=label)
    clusters.set(ylabel="share (0 to 1)", title="k-means clusters", ylim=(0, None))
    values, columns = found.cka, found.names
    if found.other_cka is not None:
        values, columns = found.other_cka, found.other_names
    image = cka.imshow(values[..., 0], vmin=0, vmax=1, cmap=HEAT, origin="lower")
    cka.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    cka.set_yticks(range(len(found.names)), found.names, fontsize=8)
    cka.set(title="CKA" if found.other_cka is None else "CKA with the other model (across)")
    figure.colorbar(image, ax=cka, shrink=0.8)
    turned, turned_error = _bars(found.change)
    change.bar(layers[1:], turned, yerr=turned_error, color=BLUE, label="change of the input")
    reach = change.twinx()
    seconds, seconds_error = _bars(found.reach)
    reach.errorbar(layers[1:], seconds, yerr=seconds_error, color=RED, marker="o")
    reach.set_ylabel("attention reaches (s)", color=RED)
    reach.set_ylim(0, None)
    change.set(ylabel="1 - cosine(input, output)", title="Change of the input, reach of attention")
    for axes in (curves, clusters, change):
        axes.set_xlabel("layer")
        axes.grid(axis="y")
    for axes in (curves, clusters):
        axes.legend(fontsize=9)
    if found.usage:
        _draw_usage(sixth, found.usage)
    else:
        sixth.axis("off")
        sixth.text(0.5, 0.5, "no codebook", ha="center")
    counts = np.asarray(found.phones.confusion, dtype=float)
    image = confusion.imshow(100 * counts / counts.sum(1, keepdims=True).clip(1), vmin=0, vmax=100, cmap=HEAT)
    phones = found.phones.phones
    confusion.set_xticks(range(len(phones)), phones, fontsize=6)
    confusion.set_yticks(range(len(phones)), phones, fontsize=6)
    confusion.set(
        xlabel="predicted phone", ylabel="true phone", title=f"Confusion in H{found.phones.best} (%)"
    )
    figure.colorbar(image, ax=confusion, shrink=0.8)
    figure.suptitle(title)
    return figure


def _bars(rows: Sequence[tuple[float, float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """(value, low, high) of each layer -> values, and what matplotlib wants of error bars."""
    value, low, high = np.array(rows).T
    return value, np.nan_to_num([value - low, high - value]).clip(0)


def _draw_usage(axes, usage: Sequence[Usage]) -> None:
    taus = [u.tau for u in usage]
    axes.plot(taus, [u.choices for u in usage], color=BLUE, marker="o", label="choices of a frame")
    axes.plot(taus, [u.used for u in usage], color=GREEN, marker="o", label="ids in use over all frames")
    axes.set_xscale("log")
    axes.set_xticks(taus, [f"{tau:g}" for tau in taus])
    axes.minorticks_off()
    axes.set(xlabel="temperature", ylabel="ids (e to the entropy)", title="Codebook", ylim=(0, None))
    axes.legend(fontsize=9)


@_styled
def codebook_usage(usage: Sequence[Usage], title: str = "") -> Figure:
    """How many ids a frame hesitates between, and how many are in use at all, over the temperature."""
    figure, [[axes]] = _picture(8, 4)
    _draw_usage(axes, usage)
    axes.set_title(title)
    return figure


@_styled
def attention_maps(weights, phones: Sequence[tuple[float, str]] = (), heads: Sequence[str] = ()) -> Figure:
    """Attention of one utterance: ``weights`` (maps, T, T), queries from bottom to top, keys from left to right."""
    weights = np.asarray(weights)
    figure, [panels] = _picture(3.4 * len(weights) + 0.5, 3.9, columns=len(weights))
    end = 0.02 * weights.shape[-1]
    for k, (axes, one) in enumerate(zip(panels, weights, strict=True)):
        top = np.quantile(one, 0.995)
        axes.imshow(one, origin="lower", extent=(0, end, 0, end), cmap=HEAT, vmin=0, vmax=top)
        for start, symbol in phones:
            axes.axvline(start, color="white", linewidth=0.4, alpha=0.6)
            if symbol:
                axes.text(start, end, symbol, fontsize=6, va="bottom")
        axes.set_xlim(0, end)
        axes.set_title(heads[k] if heads else f"head {k + 1}", pad=18)
        axes.set_xlabel("looked at (s)")
    panels[0].set_ylabel("frame that looks (s)")
    return figure


@_styled
def two_curves(scores: dict[str, Sequence], title: str = "") -> Figure:
    """Accuracies over layers with 95 % bands, {name: scores with accuracy, low and high, layer 0 first}."""
    figure, [[axes]] = _picture(8, 4)
    for colour, (name, curve) in zip(CYCLE, scores.items(), strict=False):
        low, value, high = (
            100 * np.array([getattr(s, k) for s in curve]) for k in ("low", "accuracy", "high")
        )
        axes.fill_between(range(len(curve)), low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(value, color=colour, marker="o", label=name)
    axes.set_xticks(range(len(curve)))
    axes.set(xlabel="layer (0 is the input of layer 1)", ylabel="frames (%)", title=title)
    axes.legend()
    axes.grid(axis="y")
    return figure
