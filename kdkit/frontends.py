"""From samples to 50 Hz frames: how many there are, and the waveform CNN of HuBERT.

It and the Fbank front-end (:mod:`kdkit.fbank`) give exactly ``(samples - 400) // 320 + 1`` frames for every length
(DESIGN section 2), so a student with one and a teacher with the other are aligned frame by frame without trimming.

Shapes: ``waves`` (batch, samples) float32 in [-1, 1], 16 kHz, zero-padded; ``lengths`` (batch,) true samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)
HOP, RECEPTIVE_FIELD = 320, 400  # samples between frames, samples seen by one frame


def num_frames(samples):
    """Number of 20 ms frames for ``samples`` (int or integer tensor); 400 samples give the first frame."""
    return (samples - RECEPTIVE_FIELD) // HOP + 1


def frame_mask(frames: Tensor, total: int) -> Tensor:
    """(batch,) true frame counts -> (batch, total) bool, True on real frames."""
    return torch.arange(total, device=frames.device) < frames[:, None]


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm with one group per channel whose statistics run over the *real* frames only.

    The plain group norm of HuBERT Base averages over time, padding included, so that an utterance's features
    depend on the length of its neighbours in the batch. With ``frames`` given this one gives every utterance the
    features it has alone; without padding the two are the same function.
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


class WaveformCNN(nn.Module):
    """Seven convolutions, 320x down: HuBERT's feature extractor (DESIGN 1.1).

    Args:
        channels: output channels of each convolution; (512,) * 7 in HuBERT Base, growing in the tiny teacher,
            because at the 16 kHz end a channel costs 64 times what it costs at the 50 Hz end.

    Returns (batch, frames, channels[-1]). With ``padded=False`` the caller promises that no utterance of the batch is
    padded, which saves the masking.
    """

    def __init__(self, channels: tuple[int, ...] = (512,) * 7):
        super().__init__()
        inputs = (1, *channels[:-1])
        self.convs = nn.ModuleList(
            nn.Conv1d(i, o, k, s, bias=False)
            for i, o, k, s in zip(inputs, channels, KERNELS, STRIDES, strict=True)
        )
        self.norm = MaskedGroupNorm(channels[0])
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, waves: Tensor, lengths: Tensor, padded: bool = True) -> Tensor:
        x = waves[:, None].to(self.convs[0].weight.dtype)  # (B, 1, S)
        for i, conv in enumerate(self.convs):
            x = conv(x)
            if i == 0:
                x = self.norm(x, (lengths - KERNELS[0]) // STRIDES[0] + 1 if padded else None)
            x = F.gelu(x)
        return x.transpose(1, 2)  # (B, T, C)


class WaveformFrontEnd(nn.Module):
    """Waveform CNN, LayerNorm and projection to the width of the encoder: (B, S) -> (B, T, dim)."""

    def __init__(self, dim: int, channels: tuple[int, ...], dropout: float = 0.0):
        super().__init__()
        self.cnn = WaveformCNN(channels)
        self.norm = nn.LayerNorm(channels[-1])
        self.projection = nn.Linear(channels[-1], dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, waves: Tensor, lengths: Tensor, padded: bool = True) -> Tensor:
        return self.dropout(
            self.projection(self.norm(self.cnn(waves, lengths, padded).to(self.norm.weight.dtype)))
        )
