"""One utterance: sound, features, hidden states and emissions on one time axis, with its phones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from kdkit.fbank import SHIFT, WINDOW
from kdkit.lessons.plots.style import BLUE, CYCLE, FILLS, GREY, HEAT, faint, picture, styled
from kdkit.speech.frames import HOP, RECEPTIVE_FIELD, SAMPLE_RATE, num_frames

TITLE_PAD = 18  # room for phone names above the axes
FRAME_CENTRE = 200 / SAMPLE_RATE  # seconds: middle of the first frame, of Fbank and of the CNN alike


@styled
def waveform(
    wave, phones: Sequence[tuple[float, str]] = (), title: str = "", rate: int = SAMPLE_RATE
) -> Figure:
    """Amplitude over time of ``wave`` (samples,), with the phones' borders and names."""
    figure, [[axes]] = picture(10, 2.2)
    draw_wave(axes, wave, rate)
    draw_phones(axes, phones, len(wave) / rate)
    axes.set_xlabel("time (s)")
    axes.set_title(title, pad=TITLE_PAD)
    return figure


@styled
def spectrogram(features, phones: Sequence[tuple[float, str]] = (), title: str = "") -> Figure:
    """Fbank (frames at 100 Hz, mel bins) as a picture, low frequencies at the bottom, phones marked."""
    figure, [[axes]] = picture(10, 3.2)
    image = draw_frames(axes, features, 0.01, "mel bin")
    figure.colorbar(image, ax=axes, label="log energy", pad=0.01)
    draw_phones(axes, phones, FRAME_CENTRE + 0.01 * len(features), "white")
    axes.set_xlabel("time (s)")
    axes.set_title(title, pad=TITLE_PAD)
    return figure


@styled
def aligned_features(wave, cnn, fbank, phones: Sequence[tuple[float, str]] = (), title: str = "") -> Figure:
    """One utterance three times on one time axis.

    ``wave`` (samples,) at 16 kHz; ``cnn`` (frames at 50 Hz, channels), drawn standardised channel by channel;
    ``fbank`` (frames at 100 Hz, bins).
    """
    figure, grid = picture(10, 7, rows=3, sharex=True, height_ratios=(1, 1.6, 1.6))
    axes = grid[:, 0]
    draw_wave(axes[0], wave, SAMPLE_RATE)
    images = [
        draw_frames(axes[1], standardised(cnn), 0.02, "CNN channel", -3, 3),
        draw_frames(axes[2], fbank, 0.01, "mel bin"),
    ]
    for image, axis, label in zip(images, axes[1:], ("standard deviations", "log energy"), strict=True):
        figure.colorbar(image, ax=axis, label=label, pad=0.01)
    for axis, colour in zip(axes, ("0.4", "white", "white"), strict=True):
        draw_phones(axis, phones, len(wave) / SAMPLE_RATE, colour, names=axis is axes[0])
    axes[0].set_title(title, pad=TITLE_PAD)
    axes[2].set_xlabel("time (s)")
    return figure


@styled
def emissions(
    probabilities, symbols: Sequence[str], phones: Sequence[tuple[float, str]] = (), title: str = ""
) -> Figure:
    """CTC emissions (frames at 50 Hz, symbols) as probabilities 0..1; the first symbol is the blank."""
    figure, [[axes]] = picture(10, 5)
    image = draw_emissions(axes, probabilities, symbols, phones)
    figure.colorbar(image, ax=axes, label="probability", pad=0.01)
    axes.set_xlabel("time (s)")
    axes.set_title(title, pad=TITLE_PAD)
    return figure


@styled
def hidden_states(
    states: Mapping[str, object],
    phones: Sequence[tuple[float, str]] = (),
    title: str = "",
    height: float = 1.5,
) -> Figure:
    """One utterance in several layers, {name: (frames at 50 Hz, D)}, dimensions standardised over the frames.

    ``height``: inches of a panel.
    """
    figure, grid = picture(10, height * len(states) + 0.8, rows=len(states), sharex=True)
    for axes, (name, values) in zip(grid[:, 0], states.items(), strict=True):
        image = draw_standardised(axes, values, name, phones, names=axes is grid[0, 0])
    figure.colorbar(image, ax=grid[:, 0], label="standard deviations", pad=0.01)
    grid[0, 0].set_title(title, pad=TITLE_PAD)
    grid[-1, 0].set_xlabel("time (s)")
    return figure


@styled
def mel_filters(filters, rate: int = SAMPLE_RATE, title: str = "Mel filters") -> Figure:
    """Weights (spectrum bins, mel bins) of a filterbank over frequency, every fifth filter in colour."""
    filters = np.asarray(filters)
    hertz = np.linspace(0, rate / 2, len(filters))
    figure, [[axes]] = picture(10, 3)
    for k, weights in enumerate(filters.T):
        strong = k % 5 == 0
        axes.plot(hertz, weights, color=CYCLE[k // 5 % len(CYCLE)] if strong else faint(), zorder=1 + strong)
    axes.set(xlabel="frequency (Hz)", ylabel="weight", title=title, xlim=(0, rate / 2))
    return figure


@styled
def frame_alignment(samples: int = 2800, title: str = "What a frame has seen") -> Figure:
    """The stretch of sound behind each 50 Hz frame of the waveform CNN and of Fbank with its convolution, over time
    (ms), and the Fbank windows between. Dotted lines are the middles of the CNN's frames.
    """
    ms = 1000 / SAMPLE_RATE
    figure, [[axes]] = picture(10, 4.4)
    windows = [(SHIFT * w, SHIFT * w + WINDOW) for w in range((samples - WINDOW) // SHIFT + 1)]
    frames = range(num_frames(samples))
    seen = [windows[max(0, 2 * k - 2) : 2 * k + 3] for k in frames]
    groups = (
        ("CNN", [(HOP * k, HOP * k + RECEPTIVE_FIELD) for k in frames], 2, FILLS[0], True),
        ("Fbank windows", windows, 3, "0.8", False),
        ("Fbank, convolved", [(some[0][0], some[-1][1]) for some in seen], 4, FILLS[1], True),
    )
    middles = [(HOP * k + RECEPTIVE_FIELD // 2) * ms for k in frames]
    place, ticks = 0.0, []
    for name, stretches, rows, colour, named in groups:
        for k, (start, end) in enumerate(stretches):
            row = place + k % rows
            axes.barh(row, (end - start) * ms, 0.75, left=start * ms, color=colour, edgecolor=GREY)
            if named:
                axes.text(middles[k], row, str(k), ha="center", va="center", fontsize=9, color="black")
        ticks.append((place + (rows - 1) / 2, name))
        place += rows + 1
    for middle in middles:
        axes.axvline(middle, color=GREY, linestyle=":", linewidth=0.8, zorder=0)
    axes.set_yticks([tick for tick, _ in ticks], [name for _, name in ticks])
    axes.invert_yaxis()
    axes.set(xlabel="time (ms)", title=title)
    return figure


# --- parts, into axes that are given


def draw_wave(axes, wave, rate: int) -> None:
    """Amplitude of ``wave`` (samples,) over seconds."""
    wave = np.asarray(wave)
    axes.plot(np.arange(len(wave)) / rate, wave, color=BLUE, linewidth=0.5)
    axes.set(ylabel="amplitude", xlim=(0, len(wave) / rate))


def draw_frames(axes, features, shift: float, label: str, low=None, high=None, centre=FRAME_CENTRE):
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


def standardised(values) -> np.ndarray:
    """(frames, D) with every dimension standardised over the frames: mean 0, standard deviation 1."""
    values = np.asarray(values)
    return (values - values.mean(0)) / (values.std(0) + 1e-6)


def draw_standardised(axes, values, label: str, phones: Sequence[tuple[float, str]] = (), names: bool = True):
    """(frames at 50 Hz, D), every dimension standardised over the frames, with the phones; returns the image."""
    image = draw_frames(axes, standardised(values), 0.02, label, -3, 3)
    axes.set_yticks([])
    draw_phones(axes, phones, 0.02 * len(values) + 0.005, "white", names)
    return image


def draw_emissions(axes, probabilities, symbols: Sequence[str], phones: Sequence[tuple[float, str]] = ()):
    """CTC emissions (frames at 50 Hz, symbols) as probabilities 0..1, with the phones; returns the image. The first
    symbol is the blank.
    """
    image = draw_frames(axes, probabilities, 0.02, "symbol", 0, 1)
    axes.set_yticks(range(len(symbols)), ["blank", *symbols[1:]], fontsize=8)
    draw_phones(axes, phones, 0.02 * len(probabilities) + 0.005, "0.6")
    return image


def draw_phones(axes, phones, end: float, colour: str = "0.4", names: bool = True) -> None:
    """Borders and names of phones, (start in seconds, symbol), in axes that end at ``end`` seconds."""
    across = axes.get_xaxis_transform()  # seconds, and shares of the height
    starts = [start for start, _ in phones]
    borders = [[(start, 0), (start, 1)] for start in starts]
    lines = LineCollection(borders, colors=colour, linewidths=0.6, alpha=0.8, transform=across)
    axes.add_collection(lines, autolim=False)
    inches = axes.figure.get_figwidth() * axes.get_position().width
    size, free = (9 if inches > 5 else 7), 0.0  # points; seconds from which there is room for a name
    for (start, symbol), stop in zip(phones, [*starts[1:], end], strict=False):  # no phones: nothing to draw
        middle, half = (start + min(stop, end)) / 2, 0.0045 * size * len(symbol) * end / inches
        if names and symbol and start < end and middle - half >= free:
            axes.text(middle, 1.0, symbol, transform=across, ha="center", va="bottom", fontsize=size)
            free = middle + half
    axes.set_xlim(0, end)
