"""A recording of one's own voice: is there speech in it, and what has to be known about it?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdkit.common.errors import AudioError
from kdkit.speech.frames import SAMPLE_RATE

SHORTEST, LONGEST = 0.5, 20.0  # seconds
_SILENT, _QUIET = -55.0, -42.0  # dB of full scale, of the loudest 20 ms
_BELOW = 35.0  # dB under the loudest 20 ms: what is softer, before and after the speech, is no speech
_AROUND = 0.15  # seconds before and after the speech that are kept
_CLIPPED = 0.001  # share of samples at full scale
_BLOCK = SAMPLE_RATE // 50


@dataclass(frozen=True)
class Recording:
    """``wave`` (samples,) at 16 kHz, from shortly before the speech to shortly after; ``notes``: sentences."""

    wave: Tensor
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.wave) / SAMPLE_RATE


def check_recording(wave: Tensor, seconds: float | None = None) -> Recording:
    """The speech of ``wave`` (samples,) at 16 kHz, at most its first 20 s.

    ``seconds``: of the whole recording, where ``wave`` is its beginning. Raises :class:`AudioError` for one that is too
    short or silent; that it was cut, clipped or is very quiet is a note.
    """
    seconds = len(wave) / SAMPLE_RATE if seconds is None else seconds
    if len(wave) < SHORTEST * SAMPLE_RATE:
        raise AudioError(
            f"{seconds:.1f} s are too short: say a sentence, and press Stop only after the last word"
        )
    notes = []
    if seconds > LONGEST + 0.5:
        notes.append(f"It is {seconds:.0f} s long: the first {LONGEST:.0f} s are used.")
    wave = wave[: round(LONGEST * SAMPLE_RATE)]
    levels = _levels(wave.numpy())
    if levels.max() < _SILENT:
        raise AudioError(
            f"silence: its loudest moment is at {levels.max():.0f} dB. Is the microphone muted, or another one chosen?"
        )
    if levels.max() < _QUIET:
        notes.append(f"It is very quiet ({levels.max():.0f} dB): go nearer to the microphone.")
    clipped = float((wave.abs() >= 0.999).float().mean())
    if clipped > _CLIPPED:
        notes.append(
            f"{100 * clipped:.1f} % of the samples are clipped: go away from the microphone, or turn it down."
        )
    loud = np.flatnonzero(levels > levels.max() - _BELOW)
    margin = round(_AROUND * SAMPLE_RATE)
    begin, end = _BLOCK * loud[0] - margin, _BLOCK * (loud[-1] + 1) + margin
    wave = wave[max(0, begin) : end]
    if len(wave) < SHORTEST * SAMPLE_RATE:
        raise AudioError(f"only {len(wave) / SAMPLE_RATE:.1f} s of it are speech: say a sentence")
    return Recording(wave, tuple(notes))


def at_level_of(wave: Tensor, other: Tensor) -> Tensor:
    """``wave`` as loud as ``other``, both (samples,): their loud moments (the 95th percentile of 20 ms) agree."""
    here, there = (np.percentile(_levels(some.numpy()), 95) for some in (wave, other))
    return torch.clamp(wave * 10 ** ((there - here) / 20), -1, 1)


def _levels(wave: np.ndarray) -> np.ndarray:
    """Level of every 20 ms of a waveform (samples,), in dB of full scale."""
    whole = wave[: len(wave) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).astype(np.float64)
    return 10 * np.log10(np.square(whole).mean(1).clip(1e-12))
