"""Speech as other microphones, rooms and voices would have made it: random equalisers, noise, gains and speeds, drawn
anew in every step.

Voices differ in the tilt of their spectrum as much as microphones do. A recogniser that has heard a hundred voices
through one ideal microphone takes such a tilt for a property of the phone; heard through many, it learns not to. How
loud a recording is matters to Fbank only: the group norm of a waveform CNN divides it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdkit.speech.batches import to_device
from kdkit.speech.frames import SAMPLE_RATE, frame_mask
from kdkit.speech.resample import resample


@dataclass(frozen=True)
class AugmentConfig:
    """``equaliser`` and ``noise`` are the shares of utterances that get one; 0 switches it off."""

    equaliser: float = 0.7
    decibels: float = 8.0  # standard deviation of the gain at each of its points
    noise: float = 0.5
    snr: tuple[float, float] = (5.0, 40.0)  # dB, drawn evenly
    gain: tuple[float, float] = (0.0, 0.0)  # dB for the whole utterance, drawn evenly


AUGMENTED = AugmentConfig()
"""What fine-tuning does unless it is told otherwise."""

UNCHANGED = AugmentConfig(equaliser=0.0, noise=0.0)


def augment(waves: Tensor, lengths: Tensor, config: AugmentConfig = AUGMENTED) -> Tensor:
    """Padded waveforms (B, S) with true ``lengths`` (B,), each with its own equaliser and noise; padding stays zero.

    An equaliser keeps the level, a gain changes it; noise is white, pink, brown or in between, at a signal-to-noise
    ratio over the utterance. Equaliser and noise are made in the frequency domain, at the cost of one Fourier transform
    there and back.
    """
    if any(config.gain):
        gain = torch.empty(len(waves), 1).uniform_(*config.gain)
        waves = waves * 10 ** (to_device(gain, waves.device) / 20)
    hertz = torch.fft.rfftfreq(waves.shape[1], 1 / SAMPLE_RATE)
    speech = torch.fft.rfft(waves.float())  # (B, bins)
    if config.equaliser:
        decibels = config.decibels * (torch.rand(len(waves), 1) < config.equaliser)
        shaped = speech * to_device(equaliser(decibels, hertz), waves.device)
        speech = shaped * (_power(speech) / _power(shaped).clamp_min(1e-12)).sqrt()
    if config.noise:
        loud = torch.rand(len(waves), 1) < config.noise
        share = 10 ** (-torch.empty(len(waves), 1).uniform_(*config.snr) / 10) * loud
        # noise sounds in the padding too, at first
        share = to_device(share, waves.device) * waves.shape[1] / lengths[:, None]
        noise = coloured_noise(len(waves), hertz, waves.device)
        speech = speech + noise * (share * _power(speech) / _power(noise)).sqrt()
    return torch.fft.irfft(speech, waves.shape[1]) * frame_mask(lengths, waves.shape[1])


def perturb_speed(
    waves: Tensor, lengths: Tensor, speeds: Sequence[float], on_host: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """A padded batch (B, S) played at a speed drawn from ``speeds``, pitch and formants with it, as other voices would
    have them: waveforms and lengths (B,), both new, and the lengths on the host, ``on_host`` being those of before.
    Speed perturbation (Ko et al., Interspeech 2015).

    One speed for the batch: with one for each utterance no shape would come twice, and CPUs prepare a convolution anew
    for every shape.
    """
    on_host = lengths.cpu() if on_host is None else on_host
    rate = round(100 * speeds[int(torch.randint(len(speeds), ()))])
    if rate == 100:
        return waves, lengths, on_host
    waves = resample(waves, rate, 100)
    lengths, on_host = (
        (some * 100 / rate).ceil().long().clamp_max(waves.shape[1]) for some in (lengths, on_host)
    )
    return waves * frame_mask(lengths, waves.shape[1]), lengths, on_host


def equaliser(decibels: Tensor, hertz: Tensor, points: int = 7) -> Tensor:
    """Gains (B, bins) of random equalisers: normal at ``points`` frequencies, evenly spaced in octaves from 60 to
    8,000 Hz, with a deviation of ``decibels`` (B, 1); straight lines in between.
    """
    gains = torch.randn(len(decibels), points) * decibels
    position = (hertz.clamp_min(60) / 60).log() / math.log(8000 / 60) * (points - 1)
    left = position.long().clamp_max(points - 2)
    share = position - left
    return 10 ** ((gains[:, left] * (1 - share) + gains[:, left + 1] * share) / 20)


def coloured_noise(batch: int, hertz: Tensor, device: torch.device | None = None) -> Tensor:
    """Spectra (B, bins) of noise whose power falls as 1 / f^slope, slope drawn between 0 and 2, flat below 50 Hz."""
    slope = 2 * torch.rand(batch, 1)
    noise = torch.randn(batch, len(hertz), dtype=torch.complex64, device=device)
    return noise * to_device(hertz.clamp_min(50) ** (-slope / 2), noise.device)


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square().add(spectrum.imag.square()).sum(1, keepdim=True)


class SpecAugment(nn.Module):
    """Masks bands of mel bins and stretches of time, in training only (arXiv 1904.08779, without its time warping).

    ``forward(features (B, T, bins), frames (B,))`` puts zeros, the mean of normalised features, on ``frequency_masks``
    bands of up to ``bins`` bins and ``time_masks`` stretches of up to ``span`` frames; all widths and places are drawn
    for every utterance alone, evenly, stretches among its real frames and never more than half of them together.
    """

    def __init__(self, frequency_masks: int = 2, bins: int = 30, time_masks: int = 2, span: int = 40):
        super().__init__()
        self.frequency_masks, self.bins, self.time_masks, self.span = frequency_masks, bins, time_masks, span

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        if not self.training:
            return features
        batch, total, width = features.shape
        everywhere = torch.full((batch,), width)
        longest = frames.cpu() // (2 * max(1, self.time_masks))
        bands = _stretches(self.frequency_masks, everywhere, everywhere.clamp_max(self.bins), width)
        times = _stretches(self.time_masks, frames.cpu(), longest.clamp_max(self.span), total)
        hidden = bands[:, None] | times[..., None]  # (B, T, bins)
        return features.masked_fill(hidden.to(features.device), 0.0)


def _stretches(count: int, lengths: Tensor, longest: Tensor, total: int) -> Tensor:
    """(B, total) bool: ``count`` stretches in the first ``lengths``, each of 0 to ``longest``, both (B,)."""
    shape = (len(lengths), count)
    width = (torch.rand(shape) * (longest[:, None] + 1)).long()
    start = (torch.rand(shape) * (lengths[:, None] - width + 1)).long()
    place = torch.arange(total)
    inside = (place >= start[..., None]) & (place < (start + width)[..., None])  # (B, count, total)
    return inside.any(1)
