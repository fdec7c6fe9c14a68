"""One text in one synthetic voice: waveform and phone times, with the silence around it as wanted."""

from __future__ import annotations

import numpy as np
import soxr

from kdkit.common.errors import KdkitError
from kdkit.speech.corpora.synthetic import espeak, phones
from kdkit.speech.corpora.synthetic.voices import Speaker
from kdkit.speech.frames import SAMPLE_RATE

_QUIET = 10 ** (-50 / 20)  # relative to the peak: below it, a tail is silence
Phones = list[tuple[float, str]]  # (start in seconds, symbol), "" is silence


def say(text: str, speaker: Speaker, around: float = 0.1) -> tuple[np.ndarray, Phones]:
    """``text`` in a voice: (waveform (samples,) float32 at 16 kHz, phones), ``around`` seconds of silence at both ends.

    The same samples at every call. Raises :class:`KdkitError` for a text without anything to say.
    """
    if not any(map(str.isalnum, text)):
        raise KdkitError("there is no word in the text: write what is to be said")
    rate = round(speaker.rate / speaker.tract)
    with espeak.lock:
        espeak.restart()
        try:
            return synthesise(text, speaker.voice, rate, speaker.pitch, 50, speaker.tract, around, around)
        except KdkitError as error:
            raise KdkitError(
                f"{text!r} cannot be said by this synthetic voice: use other words ({error})"
            ) from error


def synthesise(
    text: str, voice: str, rate: int, pitch: int, pitch_range: int, tract: float, before: float, after: float
) -> tuple[np.ndarray, Phones]:
    """:func:`espeak.synthesise` at 16 kHz, all frequencies scaled by ``tract`` (which speaks that much faster), the
    silence around the speech replaced by ``before`` and ``after`` seconds; phones as ``phones.normalise`` names them.
    """
    wave, events = espeak.synthesise(text, voice, rate, pitch, pitch_range)
    wave = soxr.resample(wave, espeak.RATE_HZ * tract, SAMPLE_RATE)
    starts = [(sample / (espeak.RATE_HZ * tract), phones.normalise(ipa)) for sample, ipa in events]
    return with_silence(wave, starts, before, after)


def with_silence(
    wave: np.ndarray, starts: list[tuple[float, str]], before: float, after: float
) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Put `before` and `after` seconds in place of the silence around the speech; the times move along."""
    voiced = [i for i, (_, symbol) in enumerate(starts) if symbol]
    if not voiced:
        raise KdkitError("eSpeak NG returned no phones; reinstall espeakng-loader")
    first, last = voiced[0], voiced[-1]
    begin = round(starts[first][0] * SAMPLE_RATE)
    end = round(starts[last + 1][0] * SAMPLE_RATE) if last + 1 < len(starts) else len(wave)
    loud = np.flatnonzero(np.abs(wave[end:]) > _QUIET * np.abs(wave).max())
    tail = min(end + (int(loud[-1]) + 1 if len(loud) else 0), len(wave))  # keep the release of the last phone
    pad = round(before * SAMPLE_RATE)
    padded = np.pad(wave[begin:tail], (pad, round(after * SAMPLE_RATE))).astype(np.float32)

    shift = (pad - begin) / SAMPLE_RATE
    moved = [(0.0, phones.SILENCE)] if pad else []
    for start, symbol in [*starts[first : last + 1], (end / SAMPLE_RATE, phones.SILENCE)]:
        start = round(start + shift, 4)
        if moved and moved[-1][0] >= start:
            moved[-1] = (moved[-1][0], symbol)  # a phone of no length gives way to the next
        elif not (moved and symbol == moved[-1][1] == phones.SILENCE):
            moved.append((start, symbol))
    return padded, moved
