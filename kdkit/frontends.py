"""From samples to 50 Hz frames: the waveform CNN of HuBERT, and the Fbank front-end that replaces it.

Both give exactly ``(samples - 400) // 320 + 1`` frames for every length (DESIGN section 2), so a student with
one and a teacher with the other are aligned frame by frame without trimming.

Shapes: ``waves`` (batch, samples) float32 in [-1, 1], 16 kHz, zero-padded; ``lengths`` (batch,) true samples.
"""

from __future__ import annotations

import math

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


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, T): after every convolution of the Large models."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class WaveformCNN(nn.Module):
    """Seven convolutions, 320x down: HuBERT's feature extractor (DESIGN 1.1).

    Args:
        channels: output channels of each convolution; (512,) * 7 in HuBERT Base, growing in the tiny teacher,
            because at the 16 kHz end a channel costs 64 times what it costs at the 50 Hz end.
        norm: "group", a group norm after the first convolution (Base), or "layer", a LayerNorm after each (Large).
        bias: do the convolutions have one?

    Returns (batch, frames, channels[-1]). With ``padded=False`` the caller promises that no utterance of the batch is
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
        x = waves[:, None]  # (B, 1, S)
        for i, conv in enumerate(self.convs):
            x = conv(x)
            if self.norms is not None:
                x = self.norms[i](x)
            elif i == 0:
                x = self.norm(x, (lengths - KERNELS[0]) // STRIDES[0] + 1 if padded else None)
            x = F.gelu(x)
        return x.transpose(1, 2)  # (B, T, C)


def normalise_waves(waves: Tensor, lengths: Tensor) -> Tensor:
    """Every utterance (B, S) with mean 0 and variance 1 over its true samples; padding stays 0.

    As fairseq does it, 1e-5 being added to the variance; transformers adds 1e-7, which differs on very quiet speech.
    """
    mask, count = frame_mask(lengths, waves.shape[1]), lengths[:, None]
    centred = (waves - (waves * mask).sum(1, keepdim=True) / count) * mask
    return centred * torch.rsqrt(centred.square().sum(1, keepdim=True) / count + 1e-5)


class WaveformFrontEnd(nn.Module):
    """Waveform CNN, LayerNorm and projection to the width of the encoder: (B, S) -> (B, T, dim).

    ``norm`` and ``bias`` are those of :class:`WaveformCNN`; ``normalise``: :func:`normalise_waves` comes first.
    """

    def __init__(
        self,
        dim: int,
        channels: tuple[int, ...],
        dropout: float = 0.0,
        norm: str = "group",
        bias: bool = False,
        normalise: bool = False,
    ):
        super().__init__()
        self.normalise = normalise
        self.cnn = WaveformCNN(channels, norm, bias)
        self.norm = nn.LayerNorm(channels[-1])
        self.projection = nn.Linear(channels[-1], dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, waves: Tensor, lengths: Tensor, padded: bool = True) -> Tensor:
        if self.normalise:
            waves = normalise_waves(waves, lengths)
        return self.dropout(self.projection(self.norm(self.cnn(waves, lengths, padded))))


def mel_filterbank(bins: int = 80, fft: int = 512, rate: int = 16_000, low: float = 20.0) -> Tensor:
    """Kaldi's triangular mel filters: (fft // 2 + 1, bins), triangles straight on the mel axis, low to rate / 2."""

    def mel(hz: float) -> float:
        return 1127.0 * math.log1p(hz / 700.0)

    edges = torch.linspace(mel(low), mel(rate / 2), bins + 2, dtype=torch.float64)
    hertz = torch.arange(fft // 2 + 1, dtype=torch.float64) * rate / fft
    frequency = 1127.0 * torch.log1p(hertz / 700.0)[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rising, falling).clamp_min(0.0)
    filters[-1] = 0.0  # Kaldi leaves the Nyquist bin out
    return filters.float()


class Fbank(nn.Module):
    """80 log-mel energies at 100 Hz by Kaldi's conventions, batched and differentiable (DESIGN 1.4).

    25 ms Povey window, 10 ms shift, snip_edges, DC offset removed, pre-emphasis 0.97, power spectrum of 512
    points, no dither, waveform scaled by 2^15, log floored at the float32 epsilon: the same as
    ``torchaudio.compliance.kaldi.fbank``.

    (batch, samples) -> (batch, frames at 100 Hz, 80). Always float32, inside autocast too: 2^15 squared and the log
    of small energies need the range.
    """

    WINDOW, SHIFT, FFT = 400, 160, 512

    def __init__(self, bins: int = 80):
        super().__init__()
        window = torch.hann_window(self.WINDOW, periodic=False, dtype=torch.float64).pow(0.85).float()
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", mel_filterbank(bins, self.FFT), persistent=False)
        self.floor = math.log(torch.finfo(torch.float32).eps)

    def forward(self, waves: Tensor) -> Tensor:
        with torch.autocast(waves.device.type, enabled=False):
            frames = waves.float().mul(32768.0).unfold(-1, self.WINDOW, self.SHIFT)  # (B, T, 400)
            frames = frames - frames.mean(-1, keepdim=True)
            previous = torch.cat([frames[..., :1], frames[..., :-1]], -1)
            frames = (frames - 0.97 * previous) * self.window
            power = torch.fft.rfft(frames, n=self.FFT).abs().square()  # (B, T, 257)
            return (power @ self.filters).clamp_min(torch.finfo(torch.float32).eps).log()


class FbankFrontEnd(nn.Module):
    """Fbank, global mean/variance normalisation, one strided convolution with GLU, projection: 50 Hz (DESIGN 1.4).

    ``mean`` and ``std`` (80,) are buffers of the checkpoint: set them with :meth:`set_statistics` from a corpus.
    (batch, samples) -> (batch, frames, dim); padding does not change the real frames: padded Fbank frames are
    replaced by zeros, which is what the convolution's own padding puts after an utterance that is alone.
    """

    def __init__(self, dim: int, bins: int = 80, dropout: float = 0.0):
        super().__init__()
        self.fbank = Fbank(bins)
        self.register_buffer("mean", torch.zeros(bins))
        self.register_buffer("std", torch.ones(bins))
        self.conv = nn.Conv1d(bins, 2 * dim, kernel_size=5, stride=2, padding=2)
        self.projection = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Global statistics of the log-mel bins, each (80,)."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def normalise(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Log-mel (B, T, 80) -> zero mean, unit variance over the corpus, zeros on padding."""
        frames = (lengths - Fbank.WINDOW) // Fbank.SHIFT + 1
        mask = frame_mask(frames, features.shape[1])[..., None]
        return (features - self.mean) / self.std * mask

    def forward(self, waves: Tensor, lengths: Tensor, padded: bool = True) -> Tensor:
        x = self.normalise(self.fbank(waves), lengths)  # (B, T', 80)
        x = F.glu(self.conv(x.transpose(1, 2)), dim=1)  # (B, dim, T)
        total = num_frames(waves.shape[-1])  # a padded wave can hold half a hop more than the CNN would take
        return self.dropout(self.projection(x[..., :total].transpose(1, 2)))
