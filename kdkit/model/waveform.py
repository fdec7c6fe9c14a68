"""The waveform front-end: HuBERT's CNN, from samples to 50 frames a second (:mod:`kdkit.speech.frames`).

Shapes: ``waves`` (batch, samples) float32 in [-1, 1], 16 kHz, zero-padded; ``lengths`` (batch,) true samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.speech.frames import frame_mask

KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm with one group per channel whose statistics run over the *real* frames only.

    The plain group norm of HuBERT Base averages over time, padding included, so an utterance's features depend on the
    lengths of the others in its batch. With ``frames``, this one gives every utterance the features that it has alone;
    without padding the two are equal.
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels)

    def forward(self, x: Tensor, frames: Tensor | None = None) -> Tensor:  # x (B, C, T)
        if frames is None:
            return super().forward(x)
        mask = frame_mask(frames, x.shape[-1])[:, None]  # (B, 1, T)
        count = frames[:, None, None]
        mean = (x * mask).sum(-1, keepdim=True, dtype=torch.float32) / count
        centred = (x - mean) * mask
        variance = centred.square().sum(-1, keepdim=True, dtype=torch.float32) / count
        scale = self.weight[:, None] * torch.rsqrt(variance + self.eps)
        return torch.addcmul(self.bias[:, None], centred, scale).to(x.dtype)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, T): after every convolution of the Large models."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class WaveformCNN(nn.Module):
    """Seven convolutions, 320x down: HuBERT's feature extractor.

    Args:
        channels: output channels of each convolution; (512,) * 7 in HuBERT Base. They grow in the tiny teacher, because
            a channel costs 64 times as much at the 16 kHz end as at the 50 Hz end.
        norm: "group", a group norm after the first convolution (Base), or "layer", a LayerNorm after each (Large).
        bias: whether the convolutions have one.

    Returns (batch, frames, channels[-1]). ``padded=False``: the caller guarantees that no utterance of the batch is
    padded, which saves the masking.
    """

    def __init__(self, channels: tuple[int, ...] = (512,) * 7, norm: str = "group", bias: bool = False):
        super().__init__()
        inputs = (1, *channels[:-1])
        self.convs = nn.ModuleList(
            nn.Conv1d(i, o, k, s, bias=bias)
            for i, o, k, s in zip(inputs, channels, KERNELS, STRIDES, strict=True)
        )
        self.norm = MaskedGroupNorm(channels[0]) if norm == "group" else None
        self.norms = nn.ModuleList(map(ChannelNorm, channels)) if norm == "layer" else None
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, waves: Tensor, lengths: Tensor, padded: bool = True) -> Tensor:
        x = waves[:, None].to(self.convs[0].weight.dtype)  # (B, 1, S)
        for i, conv in enumerate(self.convs):
            x = conv(x)
            if self.norms is not None:
                x = self.norms[i](x)
            elif i == 0:
                x = self.norm(x, (lengths - KERNELS[0]) // STRIDES[0] + 1 if padded else None)
            x = F.gelu(x)
        return x.transpose(1, 2)  # (B, T, C)


def normalise_waves(waves: Tensor, lengths: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Each utterance (B, S) to mean 0 and variance 1 over its true samples; padding stays 0.

    ``epsilon`` is added to the variance: 1e-5 in fairseq and torchaudio, 1e-7 in transformers. Speech at -40 dB has a
    variance of 1e-4, so the difference matters.
    """
    mask, count = frame_mask(lengths, waves.shape[1]), lengths[:, None]
    centred = (waves - (waves * mask).sum(1, keepdim=True) / count) * mask
    return centred * torch.rsqrt(centred.square().sum(1, keepdim=True) / count + epsilon)


class WaveformFrontEnd(nn.Module):
    """Waveform CNN, LayerNorm and projection to the width of the encoder: (B, S) -> (B, T, dim).

    ``norm`` and ``bias`` are those of :class:`WaveformCNN`; ``normalise``: :func:`normalise_waves` comes first, with
    ``epsilon``; ``feature_norm``: whether there is a LayerNorm.
    """

    def __init__(
        self,
        dim: int,
        channels: tuple[int, ...],
        dropout: float = 0.0,
        norm: str = "group",
        bias: bool = False,
        normalise: bool = False,
        feature_norm: bool = True,
        epsilon: float = 1e-5,
    ):
        super().__init__()
        self.normalise, self.epsilon = normalise, epsilon
        self.cnn = WaveformCNN(channels, norm, bias)
        self.norm = nn.LayerNorm(channels[-1]) if feature_norm else None
        self.projection = nn.Linear(channels[-1], dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, waves: Tensor, lengths: Tensor, padded: bool = True) -> Tensor:
        if self.normalise:
            waves = normalise_waves(waves, lengths, self.epsilon)
        features = self.cnn(waves, lengths, padded)
        first = self.norm if self.norm is not None else self.projection
        features = features.to(first.weight.dtype)
        if self.norm is not None:
            features = self.norm(features)
        return self.dropout(self.projection(features))
