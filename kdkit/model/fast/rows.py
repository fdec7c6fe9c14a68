"""The regression loss of every frame in one pass over prediction and target, and its gradient in another.

In torch it is a dozen operations, each of which reads and writes a tensor of the size of the predictions in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdkit.model.fast.checks import check, compare

try:
    import triton
    import triton.language as tl

    AVAILABLE = True
except ImportError:  # no wheels of Triton for this machine
    AVAILABLE = False

TINY = 1e-8  # what torch's cosine takes for the smallest norm


def regression_rows(prediction: Tensor, target: Tensor, cosine_weight: float, distance: str) -> Tensor:
    """:func:`kdkit.losses.regression_frames`, which defines it, by Triton kernels."""
    return Rows.apply(prediction, target, cosine_weight, distance == "l2")


class Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, prediction: Tensor, target: Tensor, cosine_weight: float, squared: bool) -> Tensor:
        p, h = prediction.contiguous(), target.contiguous()
        ctx.save_for_backward(p, h)
        ctx.settings = cosine_weight, squared
        loss = torch.empty(p.shape[:-1], device=p.device)
        _launch(_forward, p, h, loss, loss, cosine_weight, squared)
        return loss

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        p, h = ctx.saved_tensors
        into = torch.empty_like(p)
        _launch(_backward, p, h, gradient.contiguous(), into, *ctx.settings)
        return into, None, None, None


def _launch(
    kernel, p: Tensor, h: Tensor, loss: Tensor, into: Tensor, cosine_weight: float, squared: bool
) -> None:
    width = p.shape[-1]
    rows = p.numel() // width
    kernel[(rows,)](
        p, h, loss, into, width, cosine_weight, TINY,
        SQUARED=squared, BLOCK=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip


if AVAILABLE:

    @triton.jit
    def _read(p, h, width, row, BLOCK: tl.constexpr):
        place = tl.arange(0, BLOCK)
        inside = place < width
        a = tl.load(p + row * width + place, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(h + row * width + place, mask=inside, other=0.0).to(tl.float32)
        return place, inside, a, b

    @triton.jit
    def _forward(
        p, h, loss, into, width, cosine_weight, tiny, SQUARED: tl.constexpr, BLOCK: tl.constexpr
    ):  # fmt: skip
        row = tl.program_id(0).to(tl.int64)
        _, _, a, b = _read(p, h, width, row, BLOCK)
        apart = tl.sum((a - b) * (a - b) if SQUARED else tl.abs(a - b), 0) / width
        norms = tl.maximum(tl.sqrt(tl.sum(a * a, 0)), tiny) * tl.maximum(tl.sqrt(tl.sum(b * b, 0)), tiny)
        cosine = tl.sum(a * b, 0) / norms
        tl.store(loss + row, apart + cosine_weight * tl.log(1.0 + tl.exp(-cosine)))

    @triton.jit
    def _backward(
        p, h, gradient, into, width, cosine_weight, tiny, SQUARED: tl.constexpr, BLOCK: tl.constexpr
    ):  # fmt: skip
        row = tl.program_id(0).to(tl.int64)
        place, inside, a, b = _read(p, h, width, row, BLOCK)
        given = tl.load(gradient + row)
        if SQUARED:
            apart = 2.0 * (a - b)
        else:
            apart = tl.where(a > b, 1.0, tl.where(a < b, -1.0, 0.0))
        of_a = tl.maximum(tl.sqrt(tl.sum(a * a, 0)), tiny)
        of_b = tl.maximum(tl.sqrt(tl.sum(b * b, 0)), tiny)
        cosine = tl.sum(a * b, 0) / (of_a * of_b)
        slope = -cosine_weight / (1.0 + tl.exp(cosine))  # of -log sigmoid
        found = apart / width + slope * (b / (of_a * of_b) - cosine * a / (of_a * of_a))
        tl.store(into + row * width + place, (given * found).to(into.dtype.element_ty), mask=inside)


@check("rows")
def check_rows(device: torch.device, low: torch.dtype, plain: Callable[..., Tensor]) -> None:
    for dtype, width, distance, weight in (
        (torch.float32, 40, "l1", 1.0),
        (torch.float32, 64, "l2", 0.5),
        (low, 48, "l1", 1.0),
        (torch.float32, 48, "l1", 0.0),
    ):
        p, h = (torch.randn(3, 5, width, device=device).to(dtype) for _ in range(2))
        p[0, 0], h[0, 1] = h[0, 0], 0.0
        given, results = torch.randn(3, 5, device=device), []
        for run in (plain, regression_rows):
            own = p.clone().requires_grad_()
            loss = run(own, h, weight, distance)
            results.append((loss.detach(), torch.autograd.grad(loss, own, given)[0]))
        for expected, found in zip(*results, strict=True):
            compare(found, expected, 1e-2 if dtype == low else 1e-4)
