"""The losses of distillation: regression to hidden states, and the teacher's cluster distribution (DESIGN 1.2, 1.3).

Both come from arXiv 2210.15631; notebook 02 builds them up from their formulas. All means run over real frames only, so
that padding contributes nothing: ``mask`` (batch, frames) is True on real frames. All return a float32 scalar. Frames
are not picked by the mask but weighted by it: a GPU would have to be waited for, to learn how many there are.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdkit.model.fast.checks import trusted
from kdkit.model.fast.rows import regression_rows


def regression_loss(
    prediction: Tensor, target: Tensor, mask: Tensor, cosine_weight: float = 1.0, distance: str = "l1"
) -> Tensor:
    """``mean |p - h| + cosine_weight * mean( -log sigmoid( cos(p, h) ) )`` over real frames.

    Args:
        prediction, target: (batch, frames, dim). mask: (batch, frames).
        distance: "l1", or "l2" for the mean squared difference.
    """
    on_gpu = prediction.device.type == "cuda" and trusted("rows", regression_frames)
    by_frame = regression_rows if on_gpu else regression_frames
    return mean_over(mask, by_frame(prediction, target, cosine_weight, distance))


def regression_frames(prediction: Tensor, target: Tensor, cosine_weight: float, distance: str) -> Tensor:
    """:func:`regression_loss` of every frame, (batch, frames)."""
    p, h = prediction.float(), target.float()
    apart = F.l1_loss if distance == "l1" else F.mse_loss
    loss = apart(p, h, reduction="none").mean(-1)  # (batch, frames)
    if cosine_weight:
        loss = loss - cosine_weight * F.logsigmoid(F.cosine_similarity(p, h, dim=-1))
    return loss


def discriminative_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """``KL( softmax(teacher) || softmax(student) )``: summed over clusters, mean over real frames, in nats.

    Args:
        student, teacher: logits over cluster ids (batch, frames, K), divided by their temperatures already: the loss
            is not multiplied by a squared temperature. mask: (batch, frames).
    """
    log_p, log_q = student.float().log_softmax(-1), teacher.float().log_softmax(-1)
    return mean_over(mask, F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(-1))


def hard_label_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of the teacher's best cluster id, the ``hard`` variant. Arguments: :func:`discriminative_loss`."""
    loss = F.cross_entropy(student.float().transpose(1, 2), teacher.argmax(-1), reduction="none")
    return mean_over(mask, loss)


def mean_over(mask: Tensor, values: Tensor) -> Tensor:
    """Mean of ``values`` (batch, frames, ...) over the frames where ``mask`` (batch, frames) is True: (...)."""
    wide = mask.reshape(*mask.shape, *(1,) * (values.ndim - 2))
    return values.where(wide, 0.0).sum((0, 1)) / mask.sum()
