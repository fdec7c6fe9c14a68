"""Sound of any length, a window at a time: it is never held whole, so an hour needs no more memory than a minute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kdkit.common.errors import AudioError, ConfigError
from kdkit.speech.audio import to_mono_16k
from kdkit.speech.frames import HOP

_SECONDS = 10.0  # taken at once


def blocks_of_array(samples, rate: int) -> Iterator[np.ndarray]:
    """Samples (samples,) or with channels (either way round), float in [-1, 1] or 16-bit integers, as mono at 16 kHz.

    Raises :class:`ConfigError` for another shape, type or rate, and :class:`AudioError` for no samples and for those
    that :func:`kdkit.speech.audio.to_mono_16k` refuses.
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
    """A stretch of samples, and which of its frames are kept: those in the middle, where both sides are heard."""

    wave: np.ndarray  # (samples,)
    first: int  # frame
    stop: int | None  # frame; None: all
    last: bool  # of its file


def windows(blocks: Iterable[np.ndarray], window: int, margin: int) -> Iterator[Window]:
    """Cuts a stream of samples into overlapping windows whose kept frames, one after the other, are those of the whole.

    ``window`` and ``margin`` in samples, multiples of 320. Neighbours overlap by two margins; in each the frames of the
    outer margin are dropped, because they would be computed without their surroundings. What is left at the end, up to
    one and a half windows, is one window: a short file is heard in one go.
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
