"""Audio of any length in windows, so that memory does not grow with the length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kdkit.common.errors import AudioError, ConfigError
from kdkit.speech.audio import to_mono_16k
from kdkit.speech.frames import HOP

_SECONDS = 10.0  # of a block


def blocks_of_array(samples, rate: int) -> Iterator[np.ndarray]:
    """Samples (samples,), (samples, channels) or (channels, samples), float in [-1, 1] or int16, as mono 16 kHz blocks.

    Raises :class:`ConfigError` for another shape, type or rate, and :class:`AudioError` for no samples and for those
    that :func:`kdkit.speech.audio.to_mono_16k` rejects.
    """
    if isinstance(samples, Tensor):
        samples = samples.detach().cpu().numpy()
    array = np.asarray(samples)
    if array.dtype == np.int16:
        array = array / np.float32(32768)
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.floating):
        raise ConfigError(
            f"audio of shape {array.shape} and type {array.dtype}: give (samples,) or (samples, channels), "
            "float or int16"
        )
    if not isinstance(rate, (int, float, np.number)) or not rate >= 1:
        raise ConfigError(f"the sample rate is {rate!r}: give samples per second, such as 16000")
    if not array.size:
        raise AudioError("the audio holds no samples")
    if array.ndim == 1:
        array = array[:, None]
    elif array.shape[0] < array.shape[1]:  # (channels, samples), as torchaudio has it
        array = array.T
    size = round(rate * _SECONDS)
    pieces = (array[i : i + size].astype(np.float32) for i in range(0, len(array), size))
    yield from to_mono_16k(pieces, rate, "the audio")


@dataclass(frozen=True)
class Window:
    """A window of audio, and the frames to keep: those in the middle, with context on both sides."""

    wave: np.ndarray  # (samples,)
    first: int  # frame
    stop: int | None  # frame; None: all
    last: bool  # of its file


def windows(blocks: Iterable[np.ndarray], window: int, margin: int) -> Iterator[Window]:
    """Cuts a stream of 16 kHz blocks into overlapping windows whose kept frames, concatenated, are those of the whole.

    ``window`` and ``margin`` in samples, multiples of 320. Neighbours overlap by two margins, and the frames of the
    outer margins, which lack context, are dropped. The rest at the end, up to one and a half windows, is one window, so
    a short file is a single one. Raises :class:`ConfigError` for sizes that do not fit.
    """
    if window % HOP or margin % HOP or margin < HOP or window < 4 * margin:
        raise ConfigError(
            f"window {window} and margin {margin} samples: both must be multiples of {HOP}, the margin at least that, "
            "the window at least four margins"
        )
    hop, waiting, first = window - 2 * margin, np.zeros(0, np.float32), 0
    for block in blocks:
        waiting = np.concatenate([waiting, block])
        while len(waiting) > 1.5 * window:
            yield Window(waiting[:window], first, (window - margin) // HOP, False)
            waiting, first = waiting[hop:], margin // HOP
    yield Window(waiting, first, None, True)
