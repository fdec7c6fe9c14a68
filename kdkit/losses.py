"""The losses of distillation: regression to hidden states, and the teacher's cluster distribution (DESIGN 1.2, 1.3).

Both come from arXiv 2210.15631; notebook 02 builds them up from their formulas. All means run over real frames only, so
that padding contributes nothing: ``mask`` (batch, frames) is True on real frames. All return a float32 scalar.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def regression_loss(
    prediction: Tensor, target: Tensor, mask: Tensor, cosine_weight: float = 1.0, distance: str = "l1"
) -> Tensor:
    """``mean |p - h| + cosine_weight * mean( -log sigmoid( cos(p, h) ) )`` over real frames.

    Args:
        prediction, target: (batch, frames, dim). mask: (batch, frames).
        distance: "l1", or "l2" for the mean squared difference.
    """
    p, h = prediction[mask].float(), target[mask].float()  # (real frames, dim)
    loss = F.l1_loss(p, h) if distance == "l1" else F.mse_loss(p, h)
    if cosine_weight:
        loss = loss - cosine_weight * F.logsigmoid(F.cosine_similarity(p, h, dim=-1)).mean()
    return loss


def discriminative_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """``KL( softmax(teacher) || softmax(student) )``: summed over clusters, mean over real frames, in nats.

    Args:
        student, teacher: logits over cluster ids (batch, frames, K), divided by their temperatures already: the loss
            is not multiplied by a squared temperature. mask: (batch, frames).
    """
    log_p, log_q = student[mask].float().log_softmax(-1), teacher[mask].float().log_softmax(-1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def hard_label_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of the teacher's best cluster id, the ``hard`` variant. Arguments: :func:`discriminative_loss`."""
    return F.cross_entropy(student[mask].float(), teacher[mask].argmax(-1))
