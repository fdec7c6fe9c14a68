"""Figures of the lessons and the report: plain data in, a matplotlib Figure out, nothing shown or kept.

Times are in seconds, rates come in as shares (0.23) and are drawn in per cent. Colours are Okabe and Ito's,
which colour-blind readers can tell apart; where two things must never be mixed up (shipped against trained
in this run), a hatch tells too. ``phones`` is what a manifest holds: (start in seconds, symbol) pairs, ""
being silence.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import wraps

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

BLUE, ORANGE, GREEN, RED, SKY, PINK, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000",
)  # fmt: skip
CYCLE = (BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK)
HEAT = "cividis"  # even in lightness for every kind of colour vision
STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.dpi": 100,
    "hatch.linewidth": 0.8,
}
_TITLE_PAD = 18  # room for phone names above the axes
_FRAME_CENTRE = 200 / 16_000  # seconds: middle of the first frame, of Fbank and of the CNN alike


class Picture(Figure):
    """A Figure that a notebook shows by itself: made without pyplot, it is freed when nobody holds it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight", facecolor="white")
        return buffer.getvalue()


def _styled(draw):
    @wraps(draw)
    def styled(*args, **options) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **options)

    return styled


def _picture(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    figure = Picture(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


# --- one utterance ------------------------------------------------------------------------------------------


@_styled
def waveform(wave, phones: Sequence[tuple[float, str]] = (), title: str = "", rate: int = 16_000) -> Figure:
    """Amplitude over time of ``wave`` (samples,), with the phones' borders and names."""
    figure, [[axes]] = _picture(10, 2.2)
    _draw_wave(axes, wave, rate)
    _draw_phones(axes, phones, len(wave) / rate)
    axes.set_xlabel("time (s)")
    axes.set_title(title, pad=_TITLE_PAD)
    return figure


@_styled
def spectrogram(features, phones: Sequence[tuple[float, str]] = (), title: str = "") -> Figure:
    """Fbank (frames at 100 Hz, mel bins) as a picture, low frequencies at the bottom, phones marked."""
    figure, [[axes]] = _picture(10, 3.2)
    image = _draw_frames(axes, features, 0.01, "mel bin")
    figure.colorbar(image, ax=axes, label="log energy", pad=0.01)
    _draw_phones(axes, phones, _FRAME_CENTRE + 0.01 * len(features), "white")
    axes.set_xlabel("time (s)")
    axes.set_title(title, pad=_TITLE_PAD)
    return figure


@_styled
def aligned_features(wave, cnn, fbank, phones: Sequence[tuple[float, str]] = (), title: str = "") -> Figure:
    """One utterance three times on one time axis.

    ``wave`` (samples,) at 16 kHz; ``cnn`` (frames at 50 Hz, channels), drawn standardised channel by channel;
    ``fbank`` (frames at 100 Hz, bins).
    """
    figure, grid = _picture(10, 7, rows=3, sharex=True, height_ratios=(1, 1.6, 1.6))
    axes = grid[:, 0]
    cnn = np.asarray(cnn)
    _draw_wave(axes[0], wave, 16_000)
    standard = (cnn - cnn.mean(0)) / (cnn.std(0) + 1e-6)
    images = [
        _draw_frames(axes[1], standard, 0.02, "CNN channel", -3, 3),
        _draw_frames(axes[2], fbank, 0.01, "mel bin"),
    ]
    for image, axis, label in zip(images, axes[1:], ("standard deviations", "log energy"), strict=True):
        figure.colorbar(image, ax=axis, label=label, pad=0.01)
    for axis, colour in zip(axes, ("0.4", "white", "white"), strict=True):
        _draw_phones(axis, phones, len(wave) / 16_000, colour, names=axis is axes[0])
    axes[0].set_title(title, pad=_TITLE_PAD)
    axes[2].set_xlabel("time (s)")
    return figure


@_styled
def emissions(
    probabilities, symbols: Sequence[str], phones: Sequence[tuple[float, str]] = (), title: str = ""
) -> Figure:
    """CTC emissions (frames at 50 Hz, symbols) as probabilities 0..1; the first symbol is the blank."""
    probabilities = np.asarray(probabilities)
    figure, [[axes]] = _picture(10, 5)
    image = _draw_frames(axes, probabilities, 0.02, "symbol", 0, 1)
    axes.set_yticks(range(len(symbols)), ["blank", *symbols[1:]], fontsize=8)
    figure.colorbar(image, ax=axes, label="probability", pad=0.01)
    _draw_phones(axes, phones, 0.02 * len(probabilities) + 0.005, "0.6")
    axes.set_xlabel("time (s)")
    axes.set_title(title, pad=_TITLE_PAD)
    return figure


def _draw_wave(axes, wave, rate: int) -> None:
    wave = np.asarray(wave)
    axes.plot(np.arange(len(wave)) / rate, wave, color=BLUE, linewidth=0.5)
    axes.set(ylabel="amplitude", xlim=(0, len(wave) / rate))


def _draw_frames(axes, features, shift: float, label: str, low=None, high=None, centre=_FRAME_CENTRE):
    """(frames, values) with every frame drawn around its centre, so that rates of 50 and 100 Hz line up.

    ``centre``: seconds, of the first frame.
    """
    features = np.asarray(features)
    start = centre - shift / 2
    extent = (start, start + shift * len(features), -0.5, features.shape[1] - 0.5)
    image = axes.imshow(
        features.T,
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap=HEAT,
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    axes.set_ylabel(label)
    return image


def _draw_phones(axes, phones, end: float, colour: str = "0.4", names: bool = True) -> None:
    stops = [start for start, _ in phones[1:]] + [end]
    for (start, symbol), stop in zip(phones, stops, strict=False):  # no phones: nothing to draw
        axes.axvline(start, color=colour, linewidth=0.6, alpha=0.8)
        if names and symbol:
            middle = (start + min(stop, end)) / 2
            axes.annotate(
                symbol,
                (middle, 1.0),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                fontsize=9,
            )
    axes.set_xlim(0, end)


@_styled
def hidden_states(
    states: Mapping[str, object],
    phones: Sequence[tuple[float, str]] = (),
    title: str = "",
    height: float = 1.5,
) -> Figure:
    """One utterance in several layers, {name: (frames at 50 Hz, D)}, dimensions standardised over the frames.

    ``height``: inches of a panel.
    """
    figure, grid = _picture(10, height * len(states) + 0.8, rows=len(states), sharex=True)
    for axes, (name, values) in zip(grid[:, 0], states.items(), strict=True):
        values = np.asarray(values)
        standard = (values - values.mean(0)) / (values.std(0) + 1e-6)
        image = _draw_frames(axes, standard, 0.02, name, -3, 3)
        axes.set_yticks([])
        _draw_phones(axes, phones, 0.02 * len(values) + 0.005, "white", names=axes is grid[0, 0])
    figure.colorbar(image, ax=grid[:, 0], label="standard deviations", pad=0.01)
    grid[0, 0].set_title(title, pad=_TITLE_PAD)
    grid[-1, 0].set_xlabel("time (s)")
    return figure


@_styled
def mel_filters(filters, rate: int = 16_000, title: str = "Mel filters") -> Figure:
    """Weights (spectrum bins, mel bins) of a filterbank over frequency, every fifth filter in colour."""
    filters = np.asarray(filters)
    hertz = np.linspace(0, rate / 2, len(filters))
    figure, [[axes]] = _picture(10, 3)
    for k, weights in enumerate(filters.T):
        strong = k % 5 == 0
        axes.plot(hertz, weights, color=CYCLE[k // 5 % len(CYCLE)] if strong else "0.8", zorder=1 + strong)
    axes.set(xlabel="frequency (Hz)", ylabel="weight", title=title, xlim=(0, rate / 2))
    return figure


# --- layers -------------------------------------------------------------------------------------------------


@_styled
def layer_curve(probes, title: str = "A linear probe on every layer, unseen voices") -> Figure:
    """Phone accuracy over layers with 95 % bands, and Fbank + deltas as the line to beat.

    ``probes``: a :class:`kdkit.probing.PhoneProbe`, or several by name, {"teacher": probe, "student":
    probe}; models of different depth are drawn over relative depth.
    """
    probes = probes if isinstance(probes, Mapping) else {"hidden states": probes}
    depths = {len(probe.layers) for probe in probes.values()}
    figure, [[axes]] = _picture(8, 4.5)
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
    axes.axhline(100 * fbank.accuracy, color="0.3", linestyle="--", label="Fbank + deltas")
    if len(probes) == 1:
        axes.axhline(100 * probe.front_end.accuracy, color=ORANGE, linestyle=":", label="front-end output")
    if len(depths) == 1:
        axes.set_xticks(range(depths.pop()))
    same = "layer (0 is the input of layer 1)"
    axes.set(xlabel=same if axes.get_xlim()[1] > 1.5 else "relative depth (0 input, 1 last layer)")
    axes.set(ylabel="frames with the right phone (%)", title=title)
    axes.legend()
    axes.grid(axis="y")
    return figure


_INTERVALS = {
    "pnmi": "interval",
    "phone_purity": "phone_purity_interval",
    "speaker_nmi": "speaker_interval",
}


@_styled
def cluster_curve(scores, title: str = "k-means clusters of every layer against phones") -> Figure:
    """PNMI, phone purity and the speakers' share over layers, from :func:`kdkit.probing.layer_pnmi`.

    Fbank + deltas, if among the scores, is the dashed line. Bands are 95 % intervals over utterances.
    """
    figure, [[axes]] = _picture(8, 4.5)
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


@_styled
def layer_change(
    rows: Sequence[tuple[float, float, float]], title: str = "How much each layer changes its input"
) -> Figure:
    """Bars of :func:`kdkit.probing.layer_changes` (value, low, high), layer 1 first."""
    figure, [[axes]] = _picture(8, 3.2)
    change, low, high = np.array(rows).T
    axes.bar(range(1, len(change) + 1), change, yerr=[change - low, high - change], color=BLUE, capsize=3)
    axes.set_xticks(range(1, len(change) + 1))
    axes.set(xlabel="layer", ylabel="1 - cosine(input, output)", title=title)
    return figure


@_styled
def cka_map(
    values,
    rows: Sequence[str],
    columns: Sequence[str] | None = None,
    title: str = "Linear CKA between layers",
) -> Figure:
    """Similarity 0..1 of every layer (``rows``) with every layer (``columns``, default the same)."""
    columns = rows if columns is None else columns
    figure, [[axes]] = _picture(0.36 * len(columns) + 3, 0.36 * len(rows) + 2)
    image = axes.imshow(np.asarray(values), vmin=0, vmax=1, cmap=HEAT, origin="lower")
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    figure.colorbar(image, ax=axes, label="CKA (1: same up to rotation and scale)")
    axes.set(xlabel="layer", ylabel="layer", title=title)
    return figure


@_styled
def confusion(counts, phones: Sequence[str], title: str = "Which phone is taken for which") -> Figure:
    """Confusion matrix (true, predicted) of a phone probe; each row is divided by its sum."""
    counts = np.asarray(counts, dtype=float)
    shares = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    size = 0.19 * len(phones) + 2
    figure, [[axes]] = _picture(size + 1, size)
    image = axes.imshow(shares, cmap=HEAT, vmin=0, vmax=100)
    axes.set_xticks(range(len(phones)), phones, fontsize=9, rotation=90)
    axes.set_yticks(range(len(phones)), phones, fontsize=9)
    figure.colorbar(image, ax=axes, label="frames of the true phone (%)", shrink=0.8)
    axes.set(xlabel="predicted phone", ylabel="true phone", title=title)
    return figure


# --- training and systems -----------------------------------------------------------------------------------


@_styled
def training_curves(
    logs, keys: Sequence[str] = ("loss",), labels: Mapping[str, str] | None = None, title: str = ""
) -> Figure:
    """One panel for each key over steps. ``logs``: what :func:`kdkit.training.train` returns, or {name: log}.

    Rows without a key (evaluation rows have no loss) are passed over. ``labels`` names the y axes, with
    units.
    """
    logs = logs if isinstance(logs, Mapping) else {"": logs}
    figure, [panels] = _picture(4.6 * len(keys) + 1, 3.6, columns=len(keys))
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
        axes.set(xlabel="step", ylabel=(labels or {}).get(key, key.replace("_", " ")))
        axes.grid()
    if any(logs):
        panels[0].legend()
    figure.suptitle(title)
    return figure


@_styled
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
    figure, [[axes]] = _picture(9, 0.36 * len(systems) * max(1, len(splits)) + 1.8)
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
                axes.plot(interval, [y, y], color="black", linewidth=1.5, solid_capstyle="butt")
            axes.text(max(value, *interval, 0) + 1, y, f"{value:.1f}", va="center", fontsize=10)
    axes.set_yticks(range(len(systems)), [system["name"] for system in systems])
    axes.invert_yaxis()
    axes.set(xlabel=f"{unit} (%)", xlim=(0, 1.1 * axes.get_xlim()[1]), title=title)
    words = {"run": "trained in this run", "shipped": "shipped with the kit", "published": "published"}
    handles = [Patch(color=colour, label=split) for colour, split in zip(CYCLE, splits, strict=False)]
    for source, hatch in (("run", None), ("shipped", "////"), ("published", "....")):
        if source in sources:
            handles.append(Patch(facecolor="0.6", edgecolor="white", hatch=hatch, label=words[source]))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.grid(axis="x")
    return figure


@_styled
def size_and_speed(systems: Sequence[Mapping], title: str = "") -> Figure:
    """Parameters (millions) and speed (seconds of speech for each second of computing) side by side.

    ``systems``: mappings with "name", "parameters" (count) and "speed"; a None is left out.
    """
    figure, [panels] = _picture(10, 0.4 * len(systems) + 1.6, columns=2, sharey=True)
    panels[0].set_yticks(range(len(systems)), [system["name"] for system in systems])
    panels[0].invert_yaxis()
    for axes, key, scale, label, colour in (
        (panels[0], "parameters", 1e-6, "parameters (million)", BLUE),
        (panels[1], "speed", 1.0, "speed (x real time)", GREEN),
    ):
        for row, system in enumerate(systems):
            if system.get(key) is not None:
                value = scale * system[key]
                axes.barh(row, value, 0.7, color=colour)
                axes.text(value, row, f" {value:.3g}", va="center", fontsize=10)
        axes.set(xlabel=label)
        axes.margins(x=0.18)
        axes.grid(axis="x")
    figure.suptitle(title)
    return figure


@_styled
def speed_bars(speeds: Mapping[str, Mapping[str, Sequence[float]]], title: str = "") -> Figure:
    """Speed of models in several precisions: one group of bars a model, lines for quartiles, logarithmic.

    ``speeds``: {model: {precision: (lower quartile, median, upper quartile) in seconds of speech a second}}.
    """
    kinds = list(dict.fromkeys(kind for row in speeds.values() for kind in row))
    figure, [[axes]] = _picture(10, 0.28 * len(speeds) * len(kinds) + 1.6)
    height = 0.8 / max(1, len(kinds))
    for row, (_, mine) in enumerate(speeds.items()):
        for colour, (i, kind) in zip(CYCLE, enumerate(kinds), strict=False):
            if kind in mine:
                low, median, high = mine[kind]
                place = row + (i - (len(kinds) - 1) / 2) * height
                axes.barh(place, median, 0.9 * height, color=colour, label=kind if row == 0 else None)
                axes.plot([low, high], [place, place], color="0.2", linewidth=1)
                axes.text(1.03 * high, place, f"{median:.3g}", va="center", fontsize=9)
    axes.set_yticks(range(len(speeds)), list(speeds))
    axes.invert_yaxis()
    axes.set(xlabel="speed (x real time)", xscale="log", title=title)
    axes.legend(loc="lower right")
    axes.grid(axis="x")
    return figure


@_styled
def frame_alignment(samples: int = 2800, title: str = "What a frame has seen") -> Figure:
    """The stretch of sound behind each 50 Hz frame of the waveform CNN and of Fbank with its convolution, over time
    (ms), and the Fbank windows between. Dotted lines are the middles of the CNN's frames.
    """
    ms = 1000 / 16_000
    figure, [[axes]] = _picture(10, 4.4)
    windows = [(160 * w, 160 * w + 400) for w in range((samples - 400) // 160 + 1)]
    frames = range((samples - 400) // 320 + 1)
    seen = [windows[max(0, 2 * k - 2) : 2 * k + 3] for k in frames]
    groups = (
        ("CNN", [(320 * k, 320 * k + 400) for k in frames], 2, BLUE, True),
        ("Fbank windows", windows, 3, "0.7", False),
        ("Fbank, convolved", [(some[0][0], some[-1][1]) for some in seen], 4, ORANGE, True),
    )
    place, ticks = 0.0, []
    for name, stretches, rows, colour, named in groups:
        for k, (start, end) in enumerate(stretches):
            row = place + k % rows
            axes.barh(row, (end - start) * ms, 0.75, left=start * ms, color=colour)
            if named:
                axes.text((320 * k + 200) * ms, row, str(k), ha="center", va="center", fontsize=9)
        ticks.append((place + (rows - 1) / 2, name))
        place += rows + 1
    for k in frames:
        axes.axvline((320 * k + 200) * ms, color="0.3", linestyle=":", linewidth=0.8, zorder=0)
    axes.set_yticks([tick for tick, _ in ticks], [name for _, name in ticks])
    axes.invert_yaxis()
    axes.set(xlabel="time (ms)", title=title)
    return figure


@_styled
def wer_over_minutes(
    curves: Mapping[str, Sequence[Sequence[float]]], title: str = "", unit: str = "WER"
) -> Figure:
    """Error rate (shares in) over labelled minutes, {system: [(minutes, value, low, high), ...]}."""
    figure, [[axes]] = _picture(8, 4.5)
    ticks = sorted({point[0] for points in curves.values() for point in points})
    for colour, (name, points) in zip(CYCLE, curves.items(), strict=False):
        minutes, value, low, high = np.array(sorted(map(tuple, points))).T
        axes.fill_between(minutes, 100 * low, 100 * high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(minutes, 100 * value, color=colour, marker="o", label=name)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{minutes:g}" for minutes in ticks])
    axes.minorticks_off()
    axes.set(xlabel="labelled speech (minutes)", ylabel=f"{unit} (%)", ylim=(0, None), title=title)
    axes.legend()
    axes.grid(axis="y")
    return figure
