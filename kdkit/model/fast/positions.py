"""The positional convolution on a GPU: matrix products whose rows overlap (:mod:`kdkit.model.fast.windows`), both ways.

A kernel of 128 frames in 16 groups: for each group, a frame's window is 128 times its channels, one row of a product.
The gradient with respect to the input is such a product, too, of the output's gradient with the weights turned round;
that with respect to the weights is the product of the windows, transposed, with the output's gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.model.fast import windows
from kdkit.model.fast.checks import check, compare
from kdkit.model.fast.windows import windows_product

if windows.AVAILABLE:
    import triton
    import triton.language as tl


def in_groups(x: Tensor, groups: int, left: int, right: int) -> Tensor:
    """(B, T, D) -> (B G, (left + T + right) C): every group's frames behind each other, zeros before and after.

    C is the group's channels, filled up with zeros to a multiple of 8.
    """
    x = x.unflatten(2, (groups, -1))
    more = -x.shape[3] % 8
    return F.pad(x, (0, more, 0, 0, left, right)).transpose(1, 2).flatten(2).flatten(0, 1)


def as_product(weight: Tensor, groups: int) -> Tensor:
    """Weights of a Conv1d (out, in / groups, kernel) -> (groups, kernel C, out / groups), C as in :func:`in_groups`."""
    weight = weight.unflatten(0, (groups, -1)).permute(0, 3, 2, 1)  # (G, kernel, in, out)
    return F.pad(weight, (0, 0, 0, -weight.shape[2] % 8)).flatten(1, 2)


def from_groups(y: Tensor, groups: int) -> Tensor:
    """(B G, T, C) -> (B, T, G C)."""
    return y.unflatten(0, (-1, groups)).transpose(1, 2).flatten(2)


def fits(conv: nn.Conv1d) -> bool:
    """Do the kernels multiply windows of this convolution's size?"""
    channels = conv.in_channels // conv.groups
    return conv.kernel_size[0] * (channels + -channels % 8) % 64 == 0


class FrozenPositions(nn.Module):
    """What a :class:`kdkit.model.encoder.PositionalConv` computes, for inference in ``dtype``."""

    def __init__(self, positions: nn.Module, dtype: torch.dtype):
        super().__init__()
        conv = positions.conv
        self.groups, (self.kernel,) = conv.groups, conv.kernel_size
        self.register_buffer("weight", as_product(conv.weight.detach(), self.groups).to(dtype).contiguous())
        self.register_buffer("bias", conv.bias.detach().unflatten(0, (self.groups, -1)).to(dtype))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D)
        total, left = x.shape[1], self.kernel // 2
        x = in_groups(x.to(self.weight.dtype), self.groups, left, self.kernel - 1 - left)
        step = self.weight.shape[1] // self.kernel
        y = windows_product(x, self.weight, self.bias, total, step, True, self.weight.dtype)
        return from_groups(y, self.groups)


class GroupedConv(torch.autograd.Function):
    """``GroupedConv.apply(x (B, T, D), weight (D, D / G, kernel), G)``: Conv1d over T, padded by half a kernel, without
    bias; of an even kernel's T + 1 outputs the last is left out. In the dtype of ``x``.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        kernel, total = weight.shape[2], x.shape[1]
        left = kernel // 2
        rows = in_groups(x, groups, left, kernel - 1 - left)
        product = as_product(weight.to(x.dtype), groups)
        ctx.save_for_backward(rows, weight)
        ctx.groups = groups
        y = windows_product(rows, product, None, total, product.shape[1] // kernel, False, x.dtype)
        return from_groups(y, groups)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (rows, weight), groups = ctx.saved_tensors, ctx.groups
        kernel, total = weight.shape[2], gradient.shape[1]
        left = kernel // 2
        turned = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(2)
        product = as_product(turned.to(gradient.dtype), groups)
        y = in_groups(gradient, groups, kernel - 1 - left, left)
        step = product.shape[1] // kernel
        of_x = windows_product(y, product, None, total, step, False, gradient.dtype)
        plain = gradient.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1).contiguous()  # (B G, T, C)
        of_weight = weight_gradient(rows, plain, groups, step, step * kernel)
        of_weight = of_weight.unflatten(1, (kernel, step))[:, :, : weight.shape[1]]
        return from_groups(of_x, groups), of_weight.permute(0, 3, 2, 1).flatten(0, 1), None


def weight_gradient_plain(x: Tensor, y: Tensor, groups: int, step: int, size: int) -> Tensor:
    """``windows(x)^T @ y`` summed over the batch: (B G, L), (B G, rows, N) -> (G, size, N), float32."""
    many, rows, _ = y.shape
    seen = x.as_strided((many, rows, size), (x.stride(0), step, 1), x.storage_offset()).float()
    return (seen.transpose(1, 2) @ y.float()).unflatten(0, (-1, groups)).sum(0)


def weight_gradient(x: Tensor, y: Tensor, groups: int, step: int, size: int) -> Tensor:
    """:func:`weight_gradient_plain`, on a GPU by the Triton kernel: for sizes that are multiples of 64."""
    if x.device.type != "cuda":
        return weight_gradient_plain(x, y, groups, step, size)
    return launch_gradient(x, y, groups, step, size)


def launch_gradient(x: Tensor, y: Tensor, groups: int, step: int, size: int) -> Tensor:
    many, rows, columns = y.shape
    out = torch.empty(groups, size, columns, device=x.device)
    _weight_gradient[(size // 64, groups)](
        x, y, out, rows, columns, many // groups, groups, x.stride(0), step, size,
        BM=64, BN=max(16, triton.next_power_of_2(columns)), BK=64, num_warps=4, num_stages=4,
    )  # fmt: skip
    return out


if windows.AVAILABLE:

    @triton.jit
    def _weight_gradient(
        x, y, out, rows, columns, batch, groups, x_stride, step, size,
        BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    ):  # fmt: skip
        group = tl.program_id(1).to(tl.int64)
        place = tl.program_id(0) * BK + tl.arange(0, BK)
        column = tl.arange(0, BN)
        inside = (column < columns)[None]
        total = tl.zeros((BK, BN), dtype=tl.float32)
        blocks = tl.cdiv(rows, BM)
        for turn in range(batch * blocks):
            z = (turn // blocks) * groups + group
            row = (turn % blocks) * BM + tl.arange(0, BM)
            seen = tl.load(
                x + z * x_stride + row[None] * step + place[:, None], mask=(row < rows)[None], other=0.0
            )
            given = tl.load(
                y + (z * rows + row[:, None]) * columns + column[None],
                mask=(row < rows)[:, None] & inside,
                other=0.0,
            )
            total = tl.dot(seen, given, total)
        to = out + (group * size + place[:, None]) * columns + column[None]
        tl.store(to, total, mask=inside)


@check("weight_gradient")
def check_weight_gradient(device: torch.device, low: torch.dtype) -> None:
    for dtype, batch, groups, total, columns in ((torch.float32, 2, 2, 70, 8), (low, 3, 2, 100, 48)):
        step, kernel = columns + -columns % 8, 16
        x = torch.randn(batch * groups, (total + kernel) * step, device=device).to(dtype)
        y = torch.randn(batch * groups, total, columns, device=device).to(dtype)
        some = x, y, groups, step, kernel * step
        compare(launch_gradient(*some), weight_gradient_plain(*some), 2e-3)
