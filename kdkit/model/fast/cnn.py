"""The waveform CNN of a frozen network, with its first layer's group norm folded into the weights of each utterance.

The first convolution has one input channel, so mean and variance of all of its outputs follow from those of the
waveform's windows of ten samples: channel c has mean ``w_c . m`` and variance ``w_c^T S w_c``, ``m`` and ``S`` being
mean and covariance of the windows of an utterance. Then convolution, norm and GELU are one pass: the widest tensor of
the network (3.3 MB a second of speech in bf16) is written once and read once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdkit.model.fast.windows import fits, windows_product
from kdkit.model.waveform import KERNELS, STRIDES, WaveformCNN
from kdkit.speech.frames import frame_mask

_TAPS = 16  # of the first kernel, ten and zeros: a width that matrix units multiply
_CHUNK = 512  # windows that are summed together before the chunks are: as many sums go on at a time


class FrozenCNN(nn.Module):
    """What a :class:`WaveformCNN` with a group norm computes, for inference, in ``dtype``."""

    def __init__(self, cnn: WaveformCNN, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.eps = dtype, cnn.norm.eps
        first, *others = cnn.convs
        self.register_buffer("first", first.weight.detach()[:, 0].double())  # (C, 10)
        self.register_buffer("scale", cnn.norm.weight.detach().double())
        self.register_buffer("shift", cnn.norm.bias.detach().double())
        self.weights = nn.ParameterList()  # (1, kernel * inputs, outputs)
        self.biases = nn.ParameterList()
        for conv in others:
            weight = conv.weight.detach().permute(2, 1, 0).flatten(0, 1)[None].to(dtype).contiguous()
            bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
            self.weights.append(nn.Parameter(weight, requires_grad=False))
            self.biases.append(nn.Parameter(bias[None].to(weight.device, dtype), requires_grad=False))

    @staticmethod
    def suits(cnn: nn.Module) -> bool:
        """Is it a CNN with a group norm, of a size that the kernel multiplies?"""
        if not isinstance(cnn, WaveformCNN) or cnn.norm is None:
            return False
        return all(fits(conv.in_channels * conv.kernel_size[0]) for conv in cnn.convs[1:])

    def forward(self, waves: Tensor, lengths: Tensor, padded: bool = True) -> Tensor:
        rows = (waves.shape[1] - KERNELS[0]) // STRIDES[0] + 1
        weight, bias = self.folded(waves, lengths, rows)
        # the last window's zeros may look past the end of a waveform
        x = nn.functional.pad(waves.float(), (0, _TAPS))
        x = windows_product(x, weight, bias, rows, STRIDES[0], True, self.dtype)  # (B, T, C)
        for weight, bias, kernel, stride in zip(
            self.weights, self.biases, KERNELS[1:], STRIDES[1:], strict=True
        ):
            rows, channels = (x.shape[1] - kernel) // stride + 1, x.shape[2]
            x = windows_product(x.flatten(1), weight, bias, rows, stride * channels, True, self.dtype)
        return x

    def folded(self, waves: Tensor, lengths: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """First convolution and group norm as one, (B, 16, C) and (B, C): statistics in float64, since those of a
        high-pass filter are small differences of what the windows have.
        """
        frames = (lengths - KERNELS[0]) // STRIDES[0] + 1
        windows = waves.double().unfold(-1, KERNELS[0], STRIDES[0])  # (B, T, 10), a view
        windows = windows * frame_mask(frames, rows)[..., None]
        windows = nn.functional.pad(windows, (0, 0, 0, -rows % _CHUNK)).unflatten(1, (-1, _CHUNK))
        count = frames[:, None].double()
        mean = windows.sum((1, 2)) / count  # (B, 10)
        products = (windows.transpose(2, 3) @ windows).sum(1) / count[..., None]
        covariance = products - mean[:, :, None] * mean[:, None]
        variance = ((covariance @ self.first.T) * self.first.T).sum(1)  # (B, C)
        scale = self.scale * torch.rsqrt(variance.clamp_min(0) + self.eps)
        bias = self.shift - scale * (mean @ self.first.T)
        weight = (self.first.T * scale[:, None]).float()  # (B, 10, C)
        return nn.functional.pad(weight, (0, 0, 0, _TAPS - KERNELS[0])), bias.float()
