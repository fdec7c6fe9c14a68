"""Test inputs for exported recognisers: noise of many lengths, and speech."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdkit.speech.corpora.synthetic import build as synthetic


def noise(lengths: Sequence[int]) -> list[Tensor]:
    """A wave of white noise (samples,) of each length."""
    return [0.1 * torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in lengths]


def speech(count: int = 6) -> list[Tensor]:
    """Synthetic utterances (samples,) of some three seconds, with noise and reverberation, soft and loud."""
    return [torch.from_numpy(synthetic.speak("test-other", number)[0]).float() for number in range(count)]
