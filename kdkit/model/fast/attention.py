"""Scaled dot-product attention in the way that is fastest on a device: what stands behind the encoder's one call.

On a CPU in bf16 torch's kernels are slow both ways; on a GPU a mask rules out the fused ones, so utterances of
different lengths become sequences behind each other.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kdkit.model.fast.checks import check, compare, trusted

SCORES = 2**20  # attention scores of a chunk: 2 MB in bf16
# cuDNN's is left out: it plans anew for every shape, which takes longer than the step
GPU_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Scaled dot-product attention of (B, heads, T, d); in bf16 on a CPU in ways of our own.

    There the backward pass of torch's fused kernel takes six times as long in bf16 as in float32, so training computes
    in float32. Its forward pass is no faster in bf16 than in float32 without AMX; matrix products are, as long as the
    scores of a chunk of heads (and, for long utterances, of queries) stay in the processor's cache.
    """
    if mask is not None and mask.dtype == torch.int32:
        return _attend_in_segments(q, k, v, mask, dropout)
    added = mask is not None and mask.dtype != torch.bool  # WavLM's positions
    by_products = q.device.type == "cpu" and q.dtype == torch.bfloat16 and not added
    if by_products and not torch.compiler.is_compiling() and not has_amx():
        return _attend_by_products(q, k, v, mask, dropout)
    if q.device.type == "cpu" and q.requires_grad:
        return _attend_and_learn(q, k, v, mask, dropout)
    if q.device.type == "cuda":
        with sdpa_kernel(GPU_KERNELS):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


@lru_cache(maxsize=1)
def has_amx() -> bool:
    """Does this CPU have matrix units (AMX)? False with a torch that cannot tell."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def multiplies_low(x: Tensor) -> bool:
    """Is ``x`` on a GPU of 2020 or later, and multiplied in bf16 or fp16?"""
    if x.device.type != "cuda" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    low = torch.is_autocast_enabled("cuda") or x.dtype in (torch.bfloat16, torch.float16)
    return low and torch.cuda.get_device_capability(x.device) >= (8, 0)


def takes_segments(x: Tensor, heads: int) -> bool:
    """Can the fused kernel for sequences attend over ``x`` (B, T, D)?"""
    width = x.shape[2] // heads
    return multiplies_low(x) and width % 8 == 0 and width <= 256 and trusted("segments")


def segments(mask: Tensor) -> Tensor:
    """Where real frames and padding of (B, T) begin in a row of B T frames, and its end: (2 B + 1,) int32.

    The fused kernels of a GPU know no mask, but sequences of different lengths behind each other. So the padding of an
    utterance is a sequence of its own: nobody looks at it, and nothing has to be moved.
    """
    batch, total = mask.shape
    first = torch.arange(batch, device=mask.device) * total
    ends = torch.stack([first, first + mask.sum(1)], 1).flatten()
    return F.pad(ends, (0, 1), value=batch * total).int()


def _attend_in_segments(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, dropout: float) -> Tensor:
    batch, _, total, _ = q.shape
    q, k, v = (some.transpose(1, 2).flatten(0, 1) for some in (q, k, v))  # (B T, heads, d), views
    y = torch.ops.aten._flash_attention_forward(
        q, k, v, bounds, bounds, total, total, dropout, is_causal=False, return_debug_mask=False
    )[0]
    return y.unflatten(0, (batch, total)).transpose(1, 2)


def _attend_and_learn(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    mask = mask if mask is None or mask.dtype == torch.bool else mask.float()
    with torch.autocast("cpu", enabled=False):
        y = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask, dropout_p=dropout)
    return y.to(q.dtype)


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    batch, heads, total, _ = q.shape
    q, k, v = (q * q.shape[-1] ** -0.5).flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    bias = q.new_zeros(1, 1, 1).expand(batch * heads, 1, total)
    if mask is not None:
        bias = torch.where(mask[:, :, 0], 0.0, -torch.inf).to(q.dtype).repeat_interleave(heads, 0)
    some = max(1, SCORES // total**2)  # heads of a chunk
    rows = max(32, SCORES // total)  # queries of a chunk
    done = []
    for of_queries, of_keys, of_values, of_bias in zip(*(part.split(some) for part in (q, k, v, bias))):
        chunk = []
        for part in of_queries.split(rows, 1):
            scores = torch.baddbmm(of_bias, part, of_keys.transpose(1, 2)).softmax(-1)
            chunk.append(F.dropout(scores, dropout) @ of_values if dropout else scores @ of_values)
        done.append(torch.cat(chunk, 1) if len(chunk) > 1 else chunk[0])
    return torch.cat(done).unflatten(0, (batch, heads))


@check("segments")
def check_segments(device: torch.device, low: torch.dtype) -> None:
    """Attention that knows no mask, against attention with one; only a GPU has its kernel."""
    for width in (40, 64):
        qkv = torch.randn(3, 70, 3, 2, width, device=device).to(low)
        mask = torch.arange(70, device=device) < torch.tensor([[70], [33], [5]], device=device)
        given, results = torch.randn(3, 2, 70, width, device=device) * mask[:, None, :, None], []
        for keys in (mask[:, None, None], segments(mask)):
            own = qkv.float() if keys.dtype == torch.bool else qkv
            own = own.clone().requires_grad_()
            y = attend(*own.permute(2, 0, 3, 1, 4), keys, 0.0) * mask[:, None, :, None]
            results.append((y.detach(), torch.autograd.grad(y, own, given.to(y.dtype))[0]))
        for expected, found in zip(*results, strict=True):
            compare(found, expected, 2e-2)
