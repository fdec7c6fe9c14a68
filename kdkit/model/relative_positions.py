"""WavLM's gated relative position bias, which attention adds to its logits (arXiv 2110.13900, section 3.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RelativePositions(nn.Module):
    """A learned bias for each head and each distance between two frames, shared by all layers.

    Half of the ``buckets`` are for keys after the query, half for keys before it or at it. In each half, the first half
    of the buckets holds one distance each; the others hold ranges that grow logarithmically up to ``max_distance``
    frames, the last one everything beyond.
    """

    def __init__(self, heads: int, buckets: int, max_distance: int):
        super().__init__()
        self.buckets, self.max_distance = buckets, max_distance
        self.embedding = nn.Embedding(buckets, heads)

    def forward(self, frames: int) -> Tensor:
        """Bias (heads, frames, frames) of each key (last axis) for each query."""
        position = torch.arange(frames, device=self.embedding.weight.device)
        offset = position[None] - position[:, None]  # key minus query
        half = self.buckets // 2
        exact, distance = half // 2, offset.abs()
        far = torch.log(distance.float().clamp_min(1) / exact) / math.log(self.max_distance / exact)
        far = (exact + far * (half - exact)).long().clamp_max(half - 1)
        bucket = torch.where(distance < exact, distance, far) + half * (offset > 0)
        return self.embedding(bucket).permute(2, 0, 1)


class PositionGate(nn.Module):
    """Scales the shared bias by each query frame: (B, T, D), (heads, T, T) -> (B, heads, T, T)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.linear = nn.Linear(dim // heads, 8)  # four numbers for each of two gates, summed
        self.scale = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        heads = x.unflatten(-1, (self.scale.shape[1], -1)).transpose(1, 2)  # (B, heads, T, d)
        update, reset = self.linear(heads).unflatten(-1, (2, 4)).sum(-1).sigmoid().split(1, dim=-1)
        return (update * (reset * self.scale - 1) + 2) * bias
