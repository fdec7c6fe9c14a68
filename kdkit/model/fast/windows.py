"""Convolutions as matrix products whose rows overlap: a kernel for the CNN's first layer and positional convolutions.

With the channels of a frame beside each other in memory, what a kernel of ``k`` frames sees is ``k * C`` numbers in a
row, and the next output's numbers begin ``stride * C`` further on. So a convolution is a product of a matrix (outputs,
k C), whose rows overlap in memory, with the weights (k C, outputs). No library multiplies such matrices; a tiled
matrix product that is told how far apart rows are does, without copying anything, and puts bias and GELU on the tile
before it leaves the processor.

:func:`windows_product` is the Triton kernel on a GPU, :func:`windows_plain` the same in torch: its definition, and what
other devices use.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdkit.model.fast.checks import check, compare

try:
    import triton
    import triton.language as tl

    AVAILABLE = True
except ImportError:  # no wheels of Triton for this machine
    AVAILABLE = False


def windows_plain(
    x: Tensor, weight: Tensor, bias: Tensor | None, rows: int, step: int, gelu: bool, dtype: torch.dtype
) -> Tensor:
    """``act(windows @ weight + bias)``: (Z, L), (G, K, N), (G, N) -> (Z, rows, N), in ``dtype``.

    Row ``r`` of the windows of ``x[z]`` is ``x[z, r * step : r * step + K]``; ``z`` multiplies with ``weight[z % G]``.
    """
    (groups, size, _), many = weight.shape, len(x)
    windows = x.as_strided((many, rows, size), (x.stride(0), step, 1), x.storage_offset())
    y = windows.float().unflatten(0, (-1, groups)) @ weight.float()
    if bias is not None:
        y = y + bias[:, None].float()
    return (F.gelu(y) if gelu else y).flatten(0, 1).to(dtype)


def windows_product(
    x: Tensor, weight: Tensor, bias: Tensor | None, rows: int, step: int, gelu: bool, dtype: torch.dtype
) -> Tensor:
    """:func:`windows_plain`, on a GPU by the Triton kernel: for K a multiple of 16, and where it is trusted
    (:func:`kdkit.model.fast.checks.trusted`). Products of bf16 and fp16 are summed in float32; float32 multiplies in
    TF32.
    """
    if x.device.type != "cuda":
        return windows_plain(x, weight, bias, rows, step, gelu, dtype)
    out = torch.empty(len(x), rows, weight.shape[2], device=x.device, dtype=dtype)
    return launch(x, weight, bias, out, rows, step, gelu)


def launch(
    x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, rows: int, step: int, gelu: bool
) -> Tensor:
    groups, size, columns = weight.shape
    weight = weight.contiguous()
    height, width, depth, warps, stages = _tile(size, columns)
    grid = (triton.cdiv(columns, width), triton.cdiv(rows, height), len(x))
    _windows[grid](
        x, weight, weight if bias is None else bias.contiguous(), out,
        rows, columns, groups, x.stride(0), step,
        SIZE=size, GELU=gelu, BIAS=bias is not None, BM=height, BN=width, BK=depth, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out


def _tile(size: int, columns: int) -> tuple[int, int, int, int, int]:
    """Rows, columns and depth of a tile, warps and stages: one choice for a shape, so that sums have one order. None
    needs more than the 99 KB of shared memory that small cards have.
    """
    wide = columns > 64
    depth = next(d for d in (64, 32, 16) if size % d == 0 and not (wide and d == 64))
    return 128, 128 if wide else max(16, 1 << (columns - 1).bit_length()), depth, 4, 3 if wide else 4


if AVAILABLE:

    @triton.jit
    def _windows(
        x, weight, bias, out, rows, columns, groups, x_stride, step,
        SIZE: tl.constexpr, GELU: tl.constexpr, BIAS: tl.constexpr,
        BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    ):  # fmt: skip
        z = tl.program_id(2).to(tl.int64)
        group = z % groups
        row = tl.program_id(1) * BM + tl.arange(0, BM)
        column = tl.program_id(0) * BN + tl.arange(0, BN)
        place = tl.arange(0, BK)
        row_ok, column_ok = (row < rows)[:, None], (column < columns)[None]
        windows = x + z * x_stride + row[:, None] * step + place[None]
        weights = weight + group * SIZE * columns + place[:, None] * columns + column[None]
        total = tl.zeros((BM, BN), dtype=tl.float32)
        for _ in range(0, SIZE, BK):
            a = tl.load(windows, mask=row_ok, other=0.0)
            b = tl.load(weights, mask=column_ok, other=0.0)
            total = tl.dot(a, b, total)
            windows += BK
            weights += BK * columns
        if BIAS:
            total += tl.load(bias + group * columns + column, mask=column < columns, other=0.0).to(
                tl.float32
            )[None]
        if GELU:
            total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
        to = out + (z * rows + row[:, None]) * columns + column[None]
        tl.store(to, total.to(out.dtype.element_ty), mask=row_ok & column_ok)


@check("windows")
def check_windows(device: torch.device, low: torch.dtype) -> None:
    for dtype, many, groups, size, columns, outputs, step, gelu in (
        # the first layer of the CNN, then positional convolutions: every tile that models take
        (torch.float32, 2, 2, 16, 136, 50, 5, True),
        (torch.float32, 3, 1, 16, 40, 33, 5, False),
        (low, 2, 1, 96, 80, 70, 32, True),
        (low, 4, 2, 128, 48, 90, 8, False),
        (low, 2, 2, 128, 24, 40, 8, True),
    ):
        x = torch.randn(many, step * outputs + size, device=device).to(dtype)
        weight = torch.randn(groups, size, columns, device=device).to(dtype) * size**-0.5
        bias = torch.randn(groups, columns, device=device).to(dtype)
        for some in (bias, None):
            out = torch.full((many, outputs, columns), float("nan"), device=device, dtype=dtype)
            expected = windows_plain(x, weight, some, outputs, step, gelu, torch.float32)
            found = launch(x, weight, some, out, outputs, step, gelu)
            compare(found, expected, 1e-2 if dtype == low else 2e-3)
