"""Masked frames: spans, as in wav2vec 2.0 and HuBERT."""

from __future__ import annotations

import torch
from torch import Tensor


def span_mask(batch: int, frames: int, probability: float = 0.65, span: int = 10) -> Tensor:
    """(batch, frames) bool, True where masked: spans of ``span`` frames, as many as would cover ``probability`` of the
    frames without overlap (HuBERT: 0.65 and 10, which masks about half). Every row gets the same number of spans.
    """
    span = min(span, frames)
    starts = max(1, round(probability * frames / span))
    first = torch.rand(batch, frames - span + 1).argsort(1)[:, :starts]  # (B, starts), without repetition
    mask = torch.zeros(batch, frames, dtype=torch.bool)
    return mask.scatter_(1, (first[:, :, None] + torch.arange(span)).flatten(1), True)
