"""What happens to speech on its way: a room that echoes, noise of some colour, a microphone with a sound of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from kdkit.speech.frames import SAMPLE_RATE

_DB_AN_OCTAVE = 20 * math.log10(2)  # of a gain that grows with the frequency
_MIXING_TIME = 0.003  # s: the first echo comes after about a metre


def add_noise(wave: np.ndarray, snr: float, slope: float, rng: np.random.Generator) -> np.ndarray:
    """`wave` (samples,) plus stationary noise at `snr` dB over the whole utterance.

    `slope` is the colour: power falls as 1 / f^slope, so 0 is white, 1 pink and 2 brown.
    """
    noise = rng.standard_normal(next_fast_len(len(wave), real=True), dtype=np.float32)
    if slope:
        spectrum, frequency = rfft(noise), rfftfreq(len(noise), 1 / SAMPLE_RATE)
        # flat below 50 Hz: no rumble that only takes up range
        spectrum *= np.maximum(frequency, 50.0) ** (-slope / 2)
        noise = irfft(spectrum, len(noise))
    noise = noise[: len(wave)]
    noise *= np.sqrt(np.mean(wave**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
    return (wave + noise).astype(np.float32)


def _response(seconds: float, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    response[time < _MIXING_TIME] = 0.0
    response *= np.sqrt(10 ** (-6 / 10) / np.sum(response**2))
    response[0] = 1.0
    return response


def reverberate(wave: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """`wave` (samples,) heard in a room with reverberation time `seconds` (RT60: the echoes fall by 60 dB).

    The impulse response is the direct sound at time 0 (so that phone times stay true) and exponentially
    decaying noise 6 dB below it in energy.
    """
    response = _response(seconds, rng)
    length = next_fast_len(len(wave) + len(response) - 1, real=True)
    wet = irfft(rfft(wave, length) * rfft(response, length), length)
    return wet[: len(wave)].astype(np.float32)


@dataclass(frozen=True)
class Place:
    """A room and a microphone: what :func:`recorded` does to speech there."""

    reverberation: float  # s, RT60
    snr: float  # dB, over the whole utterance
    slope: float  # noise: 0 is white, 1 pink, 2 brown
    tilt: float  # microphone: dB an octave; positive is brighter
    lowest: float  # Hz, below which it hears less and less


def recorded(wave: np.ndarray, place: Place, rng: np.random.Generator) -> np.ndarray:
    """`wave` (samples,) heard in a place: its echo and its noise, as above, through its microphone.

    All of it happens in one spectrum, which is faster; the microphone changes no phase, so phone times stay true.
    """
    response = _response(place.reverberation, rng).astype(np.float32)
    length = next_fast_len(len(wave) + len(response) - 1, real=True)
    frequency = np.maximum(rfftfreq(length, 1 / SAMPLE_RATE), 1.0).astype(np.float32)
    wet = rfft(wave, length) * rfft(response, length)
    noise = rng.standard_normal(2 * len(wet), dtype=np.float32).view(np.complex64)
    noise *= np.maximum(frequency, 50) ** (-place.slope / 2)
    noise *= math.sqrt(_energy(wet) / _energy(noise)) * 10 ** (-place.snr / 20)
    microphone = (frequency / 1000) ** (place.tilt / _DB_AN_OCTAVE) / np.sqrt(
        1 + (place.lowest / frequency) ** 4
    )
    return irfft((wet + noise) * microphone, length)[: len(wave)]


def _energy(spectrum: np.ndarray) -> float:
    return float(np.vdot(spectrum, spectrum).real)
