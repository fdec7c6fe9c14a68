"""The regression loss of distillation (DESIGN 1.2, arXiv 2210.15631)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def regression_loss(
    prediction: Tensor, target: Tensor, mask: Tensor, cosine_weight: float = 1.0, distance: str = "l1"
) -> Tensor:
    """``mean |p - h| + cosine_weight * mean( -log sigmoid( cos(p, h) ) )`` over real frames.

    Args:
        prediction, target: (batch, frames, dim). mask: (batch, frames), True on real frames; padding adds nothing.
        distance: "l1", or "l2" for the mean squared difference.

    Returns a scalar.
    """
    p, h = prediction[mask].float(), target[mask].float()  # (real frames, dim)
    loss = F.l1_loss(p, h) if distance == "l1" else F.mse_loss(p, h)
    if cosine_weight:
        loss = loss - cosine_weight * F.logsigmoid(F.cosine_similarity(p, h, dim=-1)).mean()
    return loss
