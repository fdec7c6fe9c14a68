"""What makes speech hard to hear: a room that echoes and noise of some colour (the split "test-other")."""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

_RATE = 16_000
_MIXING_TIME = 0.003  # s: the first echo comes after about a metre


def add_noise(wave: np.ndarray, snr: float, slope: float, rng: np.random.Generator) -> np.ndarray:
    """`wave` (samples,) plus stationary noise at `snr` dB over the whole utterance.

    `slope` is the colour: power falls as 1 / f^slope, so 0 is white, 1 pink and 2 brown.
    """
    noise = rng.standard_normal(next_fast_len(len(wave), real=True), dtype=np.float32)
    if slope:
        spectrum, frequency = rfft(noise), rfftfreq(len(noise), 1 / _RATE)
        # flat below 50 Hz: no rumble that only takes up range
        spectrum *= np.maximum(frequency, 50.0) ** (-slope / 2)
        noise = irfft(spectrum, len(noise))
    noise = noise[: len(wave)]
    noise *= np.sqrt(np.mean(wave**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
    return (wave + noise).astype(np.float32)


def reverberate(wave: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """`wave` (samples,) heard in a room with reverberation time `seconds` (RT60: the echoes fall by 60 dB).

    The impulse response is the direct sound at time 0 (so that phone times stay true) and exponentially
    decaying noise 6 dB below it in energy.
    """
    time = np.arange(round(seconds * _RATE)) / _RATE
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    response[time < _MIXING_TIME] = 0.0
    response *= np.sqrt(10 ** (-6 / 10) / np.sum(response**2))
    response[0] = 1.0
    length = next_fast_len(len(wave) + len(response) - 1, real=True)
    wet = irfft(rfft(wave, length) * rfft(response, length), length)
    return wet[: len(wave)].astype(np.float32)
