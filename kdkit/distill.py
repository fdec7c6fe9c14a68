"""Distillation: a student learns to predict the teacher's hidden states through heads that are thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdkit.audio import read_audio
from kdkit.errors import ConfigError
from kdkit.frontends import Fbank
from kdkit.losses import regression_loss
from kdkit.manifest import Utterance
from kdkit.models import ModelConfig, SpeechModel
from kdkit.teachers import Teacher


@dataclass(frozen=True)
class DistillConfig:
    """Which student layer predicts which teacher layer, and the weights of the loss.

    ``pairs``: (student layer, teacher layer), 0 being the input of layer 1. See :func:`layer_wise` and
    :func:`prediction_heads`.
    """

    pairs: tuple[tuple[int, int], ...]
    cosine_weight: float = 1.0
    distance: str = "l1"  # "l1" | "l2"


def layer_wise(student: ModelConfig, teacher: ModelConfig) -> tuple[tuple[int, int], ...]:
    """Deep & thin: head l maps S^l to H^l, for every layer of equally deep networks."""
    if student.layers != teacher.layers:
        raise ConfigError(
            f"layer-wise distillation needs as many layers as the teacher has ({teacher.layers}), "
            f"not {student.layers}; give pairs, or use prediction heads"
        )
    return tuple((layer, layer) for layer in range(1, teacher.layers + 1))


def prediction_heads(
    student: ModelConfig, layers: tuple[int, ...] = (4, 8, 12)
) -> tuple[tuple[int, int], ...]:
    """Shallow & wide (DistilHuBERT): heads on the last student layer predict several teacher layers."""
    return tuple((student.layers, layer) for layer in layers)


def default_pairs(student: ModelConfig, teacher: ModelConfig) -> tuple[tuple[int, int], ...]:
    """Layer-wise for equally deep networks, prediction heads otherwise."""
    return layer_wise(student, teacher) if student.layers == teacher.layers else prediction_heads(student)


def fbank_statistics(utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the log-mel bins over a corpus, (80,) each: for ``FbankFrontEnd.set_statistics``.

    One pass in float64; one utterance at a time, so memory stays flat.
    """
    fbank, count = Fbank(), 0
    total, squares = torch.zeros(80, dtype=torch.float64), torch.zeros(80, dtype=torch.float64)
    for utterance in utterances:
        features = fbank(read_audio(utterance.audio)[None])[0].double()  # (T', 80)
        count += len(features)
        total += features.sum(0)
        squares += features.square().sum(0)
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp_min(1e-10).sqrt().float()


class DistillTask(nn.Module):
    """One step of distillation for :func:`kdkit.training.train`: teacher, student, heads, loss."""

    frozen = ("teacher",)

    def __init__(self, student: SpeechModel, teacher: Teacher, config: DistillConfig):
        super().__init__()
        deepest = max(s for s, _ in config.pairs), max(t for _, t in config.pairs)
        if deepest[0] > student.config.layers or deepest[1] > teacher.config.layers:
            raise ConfigError(
                f"pairs {config.pairs} name student layer {deepest[0]} of {student.config.layers} "
                f"or teacher layer {deepest[1]} of {teacher.config.layers}"
            )
        self.student, self.config = student, config
        self.teacher = teacher.model
        dims = student.config.dim, teacher.config.dim
        self.heads = nn.ModuleList(nn.Linear(*dims) for _ in config.pairs)

    def train(self, mode: bool = True) -> DistillTask:
        super().train(mode)
        self.teacher.eval()  # no dropout in the targets, ever
        return self

    def forward(self, batch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            target = self.teacher(batch.waves, batch.lengths)
        output = self.student(batch.waves, batch.lengths)
        losses = [
            regression_loss(
                head(output.hidden[s]),
                target.hidden[t],
                output.mask,
                self.config.cosine_weight,
                self.config.distance,
            )
            for head, (s, t) in zip(self.heads, self.config.pairs, strict=True)
        ]
        loss = torch.stack(losses).mean()
        return loss, {"regression": loss.detach()}
