"""The losses of distillation (arXiv 2210.15631): regression to hidden states, and the teacher's cluster distribution.

Notebook 02 builds them up from their formulas. Every mean runs over real frames only, so that padding contributes
nothing: ``mask`` (batch, frames) is True on them. All return a float32 scalar. Frames are weighted by the mask and not
picked by it (``x[mask]``): boolean indexing would force a GPU sync, and no CUDA graph could be recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdkit.common.code_identity import code_identity
from kdkit.common.errors import ConfigError
from kdkit.common.validation import number
from kdkit.model.codebook import ClusterHead, Codebook
from kdkit.model.fast.checks import trusted
from kdkit.model.fast.rows import regression_rows
from kdkit.model.speech_model import Output

DISTANCES = ("l1", "l2")


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


def discriminative_loss(
    student: Tensor, teacher: Tensor, mask: Tensor, tau: float = 1.0, tau_student: float | None = None
) -> Tensor:
    """``KL( softmax(teacher / tau) || softmax(student / tau_student) )``, summed over clusters, in nats.

    Args:
        student, teacher: cosines (or linear scores) of K cluster ids, (batch, frames, K). mask: (batch, frames).
        tau, tau_student: temperatures; the student's is the teacher's unless it is given. 1: logits are used as they
            are. The loss is not multiplied by a squared temperature.
    """
    log_q = (teacher.float() / tau).log_softmax(-1)
    log_p = (student.float() / (tau_student or tau)).log_softmax(-1)
    return mean_over(mask, F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(-1))


def hard_label_loss(student: Tensor, teacher: Tensor, mask: Tensor, tau_student: float = 1.0) -> Tensor:
    """Cross-entropy of the teacher's best cluster id, the ``hard`` variant. Arguments: :func:`discriminative_loss`."""
    logits = student.float() / tau_student
    loss = F.cross_entropy(logits.transpose(1, 2), teacher.argmax(-1), reduction="none")
    return mean_over(mask, loss)


def cluster_loss(
    variant: str, student: Tensor, teacher: Tensor, mask: Tensor, tau: float, tau_student: float
) -> Tensor:
    """The discriminative loss of a ``variant`` (:data:`kdkit.model.codebook.VARIANTS`)."""
    if variant == "hard":
        return hard_label_loss(student, teacher, mask, tau_student)
    return discriminative_loss(student, teacher, mask, tau, tau_student)


def mean_over(mask: Tensor, values: Tensor) -> Tensor:
    """Mean of ``values`` (batch, frames, ...) over the frames where ``mask`` (batch, frames) is True: (...)."""
    wide = mask.reshape(*mask.shape, *(1,) * (values.ndim - 2))
    return values.where(wide, 0.0).sum((0, 1)) / mask.sum()


@dataclass(frozen=True)
class Loss:
    """One summand of what distillation minimises: ``weight * of(output, states, mask)``, logged as ``name``.

        def last_layer(output, states, mask):
            return regression_loss(output.last, states[12], mask)

        task = DistillTask(student, teacher, config, extra=[Loss("last layer", 0.5, last_layer, layers=(12,))])

    Args:
        weight: a number, or a function of the share of the steps that is done (0 to 1), for one that changes. With 0
            the loss is only logged.
        of: any callable of the student's :class:`Output`, the teacher's hidden states {layer: (B, T, D)} and the mask
            (B, T). It returns a scalar, or a scalar and a dict of scalars to log beside it. If it is an ``nn.Module``,
            its parameters are trained and saved with the run. For a CUDA graph it must be the same tensor operations
            every time: no ``x[mask]``, no ``.item()``, nothing drawn on the CPU.
        layers: teacher layers that it reads, 0 being the input of layer 1.
    """

    name: str
    weight: float | Callable[[float], float]
    of: Callable[[Output, Mapping[int, Tensor], Tensor], Tensor | tuple[Tensor, dict[str, Tensor]]]
    layers: tuple[int, ...] = ()

    def __post_init__(self):
        if not callable(self.weight):
            number(self.weight, f"weight of loss {self.name!r}", 0, 1e6)

    def weight_at(self, share: float) -> float:
        """The weight when ``share`` of the steps is done."""
        return float(self.weight(share) if callable(self.weight) else self.weight)

    @property
    def identity(self) -> dict[str, object]:
        """What a run that goes on compares: the weight (one that changes, at every quarter), and the code. It compares
        the parameters of an ``nn.Module`` by itself.
        """
        quarters = [self.weight_at(n / 4) for n in range(5)]
        return {
            "weight": quarters if callable(self.weight) else quarters[0],
            "code": code_identity(self.of, weights=False),
        }

    def __call__(
        self, output: Output, states: Mapping[int, Tensor], mask: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Value, float32, and what is logged beside it. Raises :class:`ConfigError` for anything but a scalar tensor,
        and for a teacher layer that is not there.
        """
        try:
            found = self.of(output, states, mask)
        except KeyError as missing:
            if not missing.args or not isinstance(missing.args[0], int):
                raise
            raise ConfigError(
                f"loss {self.name!r} reads teacher layer {missing}, here are {sorted(map(str, states))}: name it in "
                f"Loss(..., layers=({missing},))"
            ) from missing
        value, beside = found if isinstance(found, tuple) else (found, {})
        if not isinstance(value, Tensor) or value.ndim:
            kind = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(
                f"loss {self.name!r} returns {kind}: a tensor of one number is needed, such as mean_over(mask, ...)"
            )
        return value.float(), beside


@dataclass(frozen=True)
class PairRegression:
    """:func:`regression_loss` through a head for each (student layer, teacher layer), mean over the pairs.

    Beside it ``spread``: how much the predictions of the last pair vary over the frames, as a share of the variation of
    their targets; near 0, the student has collapsed.
    """

    heads: Sequence[Callable[[Tensor], Tensor]]
    pairs: tuple[tuple[int, int], ...]
    cosine_weight: float
    distance: str

    def __call__(
        self, output: Output, states: Mapping[int, Tensor], mask: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        losses = []
        for head, (s, t) in zip(self.heads, self.pairs, strict=True):
            prediction, target = head(output.hidden[s]), states[t]
            losses.append(regression_loss(prediction, target, mask, self.cosine_weight, self.distance))
        with torch.no_grad():
            p, h = (_deviation(x.float(), mask).mean() for x in (prediction, target))
        return torch.stack(losses).mean(), {"spread": p / h.clamp_min(1e-6)}


@dataclass(frozen=True)
class ClusterLoss:
    """:func:`cluster_loss` of the student's last layer and the teacher's hidden states ``states[layer]``.

    Beside it ``codes``: how many cluster ids are the best one of some frame, as a share of the teacher's.
    """

    head: ClusterHead
    codebook: Codebook
    layer: int | str
    tau: float
    tau_student: float

    def __call__(
        self, output: Output, states: Mapping[int | str, Tensor], mask: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            teacher = self.codebook.cosines(states[self.layer])  # (B, T, K)
        student = self.head(output.last)
        loss = cluster_loss(self.head.variant, student, teacher, mask, self.tau, self.tau_student)
        return loss, {"codes": _ids_in_use(student, mask) / _ids_in_use(teacher, mask)}


def _deviation(states: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation of (B, T, D) over the real frames: (D,)."""
    return mean_over(mask, (states - mean_over(mask, states)).square()).sqrt()


def _ids_in_use(scores: Tensor, mask: Tensor) -> Tensor:
    """Number of cluster ids that are the best one of some real frame of (B, T, K)."""
    best = scores.argmax(-1)[..., None] == torch.arange(scores.shape[-1], device=scores.device)
    return (best & mask[..., None]).flatten(0, 1).any(0).sum()
