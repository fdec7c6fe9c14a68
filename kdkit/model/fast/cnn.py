"""The waveform CNN of a frozen network, with its first layer's group norm folded into the weights of each utterance.

The first convolution has one input channel, so mean and variance of all of its outputs follow from those of the
waveform's windows of ten samples: channel c has mean ``w_c . m`` and variance ``w_c^T S w_c``, ``m`` and ``S`` being
mean and covariance of the windows of an utterance. Then convolution, norm and GELU are one pass: the widest tensor of
the network (3.3 MB a second of speech in bf16) is written once and read once. It is written with the channels of a
frame beside each other, for which cuDNN has its fastest convolutions: the other layers take those.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.model.fast.windows import windows_product
from kdkit.model.waveform import KERNELS, STRIDES, WaveformCNN
from kdkit.speech.frames import frame_mask

_TAPS = 16  # of the first kernel, ten and zeros: a width that matrix units multiply
_CHUNK = 512  # windows that are summed together before the chunks are: as many sums go on at a time


class FrozenCNN(nn.Module):
    """What a :class:`WaveformCNN` with a group norm computes, for inference, in ``dtype``."""

    def __init__(self, cnn: WaveformCNN, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.eps = dtype, cnn.norm.eps
        self.register_buffer("first", cnn.convs[0].weight.detach()[:, 0].double())  # (C, 10)
        self.register_buffer("scale", cnn.norm.weight.detach().double())
        self.register_buffer("shift", cnn.norm.bias.detach().double())
        self.others = copy.deepcopy(cnn.convs[1:])
        for conv in self.others:
            # channels beside each other
            weight = conv.weight.to(dtype).transpose(1, 2).contiguous().transpose(1, 2)
            conv.weight = nn.Parameter(weight, requires_grad=False)
            if conv.bias is not None:
                conv.bias = nn.Parameter(conv.bias.to(dtype), requires_grad=False)

    @staticmethod
    def suits(cnn: nn.Module) -> bool:
        """Is it a CNN with a group norm?"""
        return isinstance(cnn, WaveformCNN) and cnn.norm is not None

    def forward(self, waves: Tensor, lengths: Tensor, padded: bool = True) -> Tensor:
        rows = (waves.shape[1] - KERNELS[0]) // STRIDES[0] + 1
        weight, bias = self.folded(waves, lengths, rows)
        # the last window's zeros may look past the end of a waveform
        x = F.pad(waves.float(), (0, _TAPS))
        x = windows_product(x, weight, bias, rows, STRIDES[0], True, self.dtype)  # (B, T, C)
        x = x.transpose(1, 2)[:, :, None]  # (B, C, 1, T), an image with its channels last
        for conv in self.others:
            x = F.conv2d(x, conv.weight[:, :, None], conv.bias, (1, *conv.stride))
            x = F.gelu(x)
        return x[:, :, 0].transpose(1, 2)

    def folded(self, waves: Tensor, lengths: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """First convolution and group norm as one, (B, 16, C) and (B, C): statistics in float64, since those of a
        high-pass filter are small differences of what the windows have.
        """
        frames = (lengths - KERNELS[0]) // STRIDES[0] + 1
        windows = waves.double().unfold(-1, KERNELS[0], STRIDES[0])  # (B, T, 10), a view
        windows = windows * frame_mask(frames, rows)[..., None]
        windows = F.pad(windows, (0, 0, 0, -rows % _CHUNK)).unflatten(1, (-1, _CHUNK))
        count = frames[:, None].double()
        mean = windows.sum((1, 2)) / count  # (B, 10)
        products = (windows.transpose(2, 3) @ windows).sum(1) / count[..., None]
        covariance = products - mean[:, :, None] * mean[:, None]
        variance = ((covariance @ self.first.T) * self.first.T).sum(1)  # (B, C)
        scale = self.scale * torch.rsqrt(variance.clamp_min(0) + self.eps)
        bias = self.shift - scale * (mean @ self.first.T)
        weight = (self.first.T * scale[:, None]).float()  # (B, 10, C)
        return F.pad(weight, (0, 0, 0, _TAPS - KERNELS[0])), bias.float()
