"""A long convolution by Fourier transform: what makes the positional convolution ten times as fast on a CPU.

A kernel of 128 frames in 16 groups is slow as a direct convolution, on GPUs too. Cut the frames into blocks, take the
Fourier transform of each, and the convolution is one small matrix product for every frequency and group
("overlap-save"). The result equals that of ``conv1d`` to float error.

Where bf16 matrix products are very fast (AMX), the transforms are products, too: :func:`product_conv1d`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdkit.fbank import fourier_matrix


def kernel_spectrum(weight: Tensor, groups: int) -> Tensor:
    """Weights of a Conv1d (out, in / groups, kernel) -> (frequencies, groups, in / groups, out / groups), complex64.

    Blocks are twice as long as the kernel. The spectrum is conjugated, since a convolution layer correlates.
    """
    size = 2 * weight.shape[-1]
    spectrum = torch.fft.rfft(weight.float(), n=size).conj()  # (out, in / groups, frequencies)
    return spectrum.unflatten(0, (groups, -1)).permute(3, 0, 2, 1)


def fft_conv1d(x: Tensor, spectrum: Tensor) -> Tensor:
    """Conv1d of (B, T, in), padded by half a kernel on both sides, with :func:`kernel_spectrum`: (B, T, out), float32.

    The bias is left to the caller. For an even kernel the last of its T + 1 outputs is left out.
    """
    frequencies, groups, inputs, outputs = spectrum.shape
    size = 2 * (frequencies - 1)
    kernel = size // 2
    new = size - kernel + 1  # outputs of a block
    batch, total, _ = x.shape
    blocks = -(-total // new)
    left = kernel // 2
    right = blocks * new + kernel - 1 - left - total
    with torch.autocast(x.device.type, enabled=False):
        padded = F.pad(x.float(), (0, 0, left, right)).transpose(1, 2)  # (B, in, blocks * new + kernel - 1)
        y = torch.fft.rfft(padded.unfold(-1, size, new))  # (B, in, blocks, frequencies)
        y = y.reshape(batch, groups, inputs, blocks, frequencies).permute(4, 1, 0, 3, 2).flatten(2, 3)
        z = torch.matmul(y, spectrum)  # (frequencies, groups, B * blocks, outputs)
        # (B, groups, outputs, blocks, frequencies)
        z = z.unflatten(2, (batch, blocks)).permute(2, 1, 4, 3, 0)
        z = torch.fft.irfft(z, n=size)[..., :new]
        return z.reshape(batch, groups * outputs, blocks * new)[..., :total].transpose(1, 2)


def product_matrices(spectrum: Tensor, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`product_conv1d` needs of a :func:`kernel_spectrum`: matrices there, between and back.

    Shapes: (size + 2, size), (frequencies, groups, 2 in / groups, 2 out / groups), (new, size + 2), all of ``dtype``;
    real parts come before imaginary ones.
    """
    size = 2 * (len(spectrum) - 1)
    there = fourier_matrix(size, size).T
    twice = torch.full((len(spectrum),), 2.0)  # all frequencies but the lowest and the highest stand for two
    twice[0] = twice[-1] = 1.0
    back = (there * twice.repeat(2)[:, None]).T[: size // 2 + 1] / size
    of_real = torch.cat([spectrum.real, spectrum.imag], -1)
    of_imaginary = torch.cat([-spectrum.imag, spectrum.real], -1)
    between = torch.cat([of_real, of_imaginary], -2)
    return tuple(matrix.to(dtype).contiguous() for matrix in (there, between, back))


def product_conv1d(x: Tensor, matrices: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """:func:`fft_conv1d` by real matrix products alone, in the dtype of ``x`` (B, T, in) and of the matrices.

    Channels stay the last dimension from beginning to end, so that little is copied. In bf16 on a CPU with AMX it takes
    a third to a half of the time of the transforms in float32. Its error is about that of a convolution in bf16, but
    spread over a block: frames of padding, zeros otherwise, get some of it.
    """
    there, between, back = matrices
    frequencies, groups, inputs, outputs = between.shape
    new, size = len(back), there.shape[1]
    batch, total, _ = x.shape
    blocks = -(-total // new)
    left = (new - 1) // 2
    padded = F.pad(x, (0, 0, left, blocks * new + size - new - left - total))
    rows = padded.unfold(1, size, new).transpose(2, 3)  # (B, blocks, size, in), blocks overlap: a view
    # (B * blocks, 2 * frequencies, in); all at once would copy them
    y = torch.cat([there @ row for row in rows])
    y = y.reshape(-1, 2, frequencies, groups, inputs // 2).permute(2, 3, 0, 1, 4).flatten(3)
    z = (y @ between).unflatten(-1, (2, -1))  # (frequencies, groups, B * blocks, 2, out / groups)
    z = z.permute(2, 3, 0, 1, 4).flatten(3).flatten(1, 2)
    return (back @ z).reshape(batch, blocks * new, groups * outputs // 2)[:, :total]
