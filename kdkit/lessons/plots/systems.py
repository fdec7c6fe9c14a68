"""Trainings and finished systems: curves, error rates, sizes and speeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator

from kdkit.common.errors import ConfigError
from kdkit.lessons.plots.style import BLUE, CYCLE, ORANGE, faint, ink, paper, picture, styled
from kdkit.lessons.records import SOURCES


@styled
def training_curves(
    logs, keys: Sequence[str] = ("loss",), labels: Mapping[str, str] | None = None, title: str = ""
) -> Figure:
    """One panel for each key over steps. ``logs``: what :func:`kdkit.training.loop.train` returns, or {name: log}.

    Rows without a key (evaluation rows have no loss) are skipped. ``labels`` names the y axes, with
    units. Raises :class:`ConfigError` for a training without rows, and a key that no training has logged.
    """
    logs = logs if isinstance(logs, Mapping) else {"": logs}
    _check_rows(logs, keys)
    figure, [panels] = picture(min(11, 4.6 * len(keys) + 1), 3.6, columns=len(keys))
    for axes, key in zip(panels, keys, strict=True):
        for colour, (name, log) in zip(CYCLE, logs.items(), strict=False):
            points = [(row["step"], row[key]) for row in log if key in row]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    label=name,
                    marker="o" if len(points) < 20 else None,
                )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set(xlabel="step", ylabel=(labels or {}).get(key, key.replace("_", " ")))
        axes.grid()
    if any(logs):
        panels[0].legend()
    figure.suptitle(title)
    return figure


def _check_rows(logs: Mapping[str, list[dict]], keys: Sequence[str]) -> None:
    advice = "run the cell that trains to its end; one that was stopped goes on when it is run again"
    empty = [f" {name}".rstrip() for name, log in logs.items() if not log]
    if empty or not logs:
        which = empty[0] if empty else ""
        raise ConfigError(f"no curve to draw: the training{which} has logged nothing; {advice}")
    for key in keys:
        if not any(key in row for log in logs.values() for row in log):
            known = dict.fromkeys(name for log in logs.values() for row in log for name in row)
            raise ConfigError(
                f"no curve to draw: no step has logged {key!r} (but {', '.join(known)}); {advice}"
            )


@styled
def wer_bars(
    systems: Sequence[Mapping],
    title: str = "Word error rate, 95 % intervals over utterances",
    unit: str = "WER",
) -> Figure:
    """Horizontal bars of error rates, one group a system, one bar a test set.

    ``systems``: mappings with "name", "wer" {test set: (value, low, high) or (value,)}, and optionally
    "source": "run" (trained here, the default), "shipped" or "published"; the latter two are hatched, as
    the legend says.
    """
    splits = list(dict.fromkeys(split for system in systems for split in system["wer"]))
    figure, [[axes]] = picture(9, 0.36 * len(systems) * max(1, len(splits)) + 1.8)
    height, sources = 0.8 / max(1, len(splits)), set()
    for row, system in enumerate(systems):
        source = system.get("source", "run")
        sources.add(source)
        for k, split in enumerate(splits):
            if split not in system["wer"]:
                continue
            value, *interval = (100 * v for v in system["wer"][split])
            y = row + (k - (len(splits) - 1) / 2) * height
            hatch = {"run": None, "shipped": "///", "published": "..."}[source]
            axes.barh(y, value, 0.9 * height, color=CYCLE[k], hatch=hatch, edgecolor="white", linewidth=0.5)
            if interval:
                axes.plot(interval, [y, y], color=ink(), linewidth=1.5, solid_capstyle="butt")
            axes.text(max(value, *interval, 0) + 1, y, f"{value:.1f}", va="center", fontsize=10)
    axes.set_yticks(range(len(systems)), [system["name"] for system in systems])
    axes.invert_yaxis()
    axes.set(xlabel=f"{unit} (%)", xlim=(0, 1.1 * axes.get_xlim()[1]), title=title)
    handles = [Patch(color=colour, label=split) for colour, split in zip(CYCLE, splits, strict=False)]
    for source, hatch in (("run", None), ("shipped", "////"), ("published", "....")):
        if source in sources:
            handles.append(Patch(facecolor="0.5", edgecolor="white", hatch=hatch, label=SOURCES[source]))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.grid(axis="x")
    return figure


@styled
def wer_points(
    rows: Sequence[Mapping], reference: tuple[str, float, Sequence[float]] | None = None, title: str = ""
) -> Figure:
    """Error rates as points with their 95 % intervals, one row each, the first on top.

    ``rows``: mappings with "name", "value" and "interval" (shares); those with a true "aside" are hollow, and not part
    of the staircase that joins the others. ``reference``: (name, value, interval) of what they are measured against, a
    vertical line with a band.
    """
    figure, [[axes]] = picture(9, 0.4 * len(rows) + 1.6)
    values = [100 * row["value"] for row in rows]
    steps = [place for place, row in enumerate(rows) if not row.get("aside")]
    axes.plot([values[place] for place in steps], steps, drawstyle="steps-post", color=faint(), linewidth=1)
    for place, row in enumerate(rows):
        low, high = (100 * end for end in row["interval"])
        axes.plot([low, high], [place, place], color=BLUE, linewidth=2, solid_capstyle="butt")
        axes.plot(
            values[place], place, "o", color=BLUE, markerfacecolor=paper() if row.get("aside") else BLUE
        )
        axes.text(high, place, f"  {values[place]:.1f}", va="center", fontsize=10)
    if reference:
        name, value, interval = reference
        axes.axvspan(*(100 * end for end in interval), color=ORANGE, alpha=0.15, linewidth=0)
        axes.axvline(100 * value, color=ORANGE, label=f"{name}, {100 * value:.1f}")
        axes.legend(loc="lower right")
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="WER (%)", title=title)
    axes.margins(x=0.1)
    axes.grid(axis="x")
    return figure


@styled
def speed_bars(speeds: Mapping[str, Mapping[str, Sequence[float]]], title: str = "") -> Figure:
    """Speed of models in several precisions: one group of bars a model, lines for quartiles, logarithmic.

    ``speeds``: {model: {precision: (lower quartile, median, upper quartile) in seconds of speech a second}}.
    """
    kinds = list(dict.fromkeys(kind for row in speeds.values() for kind in row))
    figure, [[axes]] = picture(10, 0.28 * len(speeds) * len(kinds) + 1.6)
    height = 0.8 / max(1, len(kinds))
    for row, (_, mine) in enumerate(speeds.items()):
        for colour, (i, kind) in zip(CYCLE, enumerate(kinds), strict=False):
            if kind in mine:
                low, median, high = mine[kind]
                place = row + (i - (len(kinds) - 1) / 2) * height
                axes.barh(place, median, 0.9 * height, color=colour, label=kind if row == 0 else None)
                axes.plot([low, high], [place, place], color=ink(), linewidth=1)
                axes.text(1.03 * high, place, f"{median:.3g}", va="center", fontsize=9)
    axes.set_yticks(range(len(speeds)), list(speeds))
    axes.invert_yaxis()
    axes.set(xlabel="speed (x real time)", xscale="log", title=title)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(axis="x")
    return figure


@styled
def wer_curves(
    curves: Mapping[str, Sequence[Sequence[float]]],
    title: str = "",
    unit: str = "WER",
    over: str = "labelled speech (minutes)",
) -> Figure:
    """Error rate (shares in) over labelled minutes, {"system start": [(minutes, value, low, high), ...]}, or over
    something else that is wider than a decade, like steps (``over``).

    A colour for every start (the last word), a marker and a line for every system (what is before it).
    """
    figure, [[axes]] = picture(8, 4.5)
    ticks = sorted({point[0] for points in curves.values() for point in points})
    systems, starts = ({name.rpartition(" ")[part]: None for name in curves} for part in (0, 2))
    lines = dict(zip(systems, cycle(("o-", "s--", "^:", "D-."))))
    colours = dict(zip(starts, cycle(CYCLE)))
    for name, points in curves.items():
        system, _, start = name.rpartition(" ")
        amount, value, low, high = np.array(sorted(map(tuple, points))).T
        axes.fill_between(amount, 100 * low, 100 * high, color=colours[start], alpha=0.15, linewidth=0)
        axes.plot(amount, 100 * value, lines[system], color=colours[start], label=name)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{amount:,g}" for amount in ticks])
    axes.minorticks_off()
    axes.set(xlabel=over, ylabel=f"{unit} (%)", ylim=(0, None), title=title)
    axes.legend()
    axes.grid(axis="y")
    return figure


@styled
def change_curves(
    changes: Mapping[str, Sequence[Sequence[float]]], baseline: str, measure: str, over: str, title: str = ""
) -> Figure:
    """Differences of a ``measure`` (shares in) to a ``baseline`` over steps, say (``over``): {"trial": [(steps,
    difference, low, high), ...]}. Where a curve crosses 0, a short training and a long one say different things.
    """
    figure, [[axes]] = picture(9, 4.5)
    ticks = sorted({point[0] for points in changes.values() for point in points})
    for (name, points), colour, mark in zip(changes.items(), cycle(CYCLE), cycle("os^Dv")):
        amount, value, low, high = np.array(sorted(map(tuple, points))).T
        axes.fill_between(amount, 100 * low, 100 * high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(amount, 100 * value, f"{mark}-", color=colour, label=name)
    axes.axhline(0, color=ink(), linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{amount:,g}" for amount in ticks])
    axes.minorticks_off()
    axes.set(xlabel=over, ylabel=f"{measure}: points from\n{baseline}", title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(axis="y")
    return figure
