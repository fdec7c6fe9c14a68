"""Resampling of batches on their device, by windowed-sinc interpolation (Smith, 1984).

A signal between its samples is the sum of sinc functions, one for each sample. For a ratio of whole numbers the weights
repeat, so all output samples are one strided convolution with ``new`` filters. The same as torchaudio's ``resample``;
files are resampled by soxr (:mod:`kdkit.speech.audio`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_ZEROS = 6  # zero crossings of the sinc on either side
_ROLLOFF = 0.99  # cut-off, as a share of the lower Nyquist frequency


def resample(waves: Tensor, old: int, new: int) -> Tensor:
    """Waveforms (B, S) at the rate ``old`` -> (B, ceil(S new / old)) at the rate ``new``. The weights are computed in
    the dtype of ``waves``.
    """
    if old == new:
        return waves
    divisor = math.gcd(old, new)
    old, new, samples = old // divisor, new // divisor, waves.shape[1]
    filters, width = sinc_filters(old, new, waves.dtype, waves.device)
    padded = F.pad(waves, (width, width + old))[:, None]
    found = F.conv1d(padded, filters, stride=old)  # (B, new, steps)
    return found.transpose(1, 2).flatten(1)[:, : math.ceil(new * samples / old)]


def sinc_filters(old: int, new: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, int]:
    """(new, 1, 2 width + old) filters under a Hann window, one for each output sample of a step, and ``width``."""
    rate = min(old, new) * _ROLLOFF
    width = math.ceil(_ZEROS * old / rate)
    inputs = torch.arange(-width, width + old, dtype=dtype, device=device)[None, None] / old
    outputs = torch.arange(0, -new, -1, dtype=dtype, device=device)[:, None, None] / new
    time = ((outputs + inputs) * rate).clamp(-_ZEROS, _ZEROS)  # in zero crossings
    window = torch.cos(time * math.pi / _ZEROS / 2) ** 2
    angle = time * math.pi
    sinc = torch.where(angle == 0, torch.ones_like(angle), angle.sin() / angle)
    return sinc * (window * (rate / old)), width
