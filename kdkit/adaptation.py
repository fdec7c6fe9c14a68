"""Front-end adaptation (DESIGN 1.4): in the first steps of distillation the front-end alone learns.

It learns to give what the teacher's first layer gets, H^0, or what the teacher's own front-end gives, or both. H^0 has
gone through the teacher's positional convolution, which mixes 64 to 128 frames: a front-end that sees a few of them can
follow its own teacher's front-end more closely than H^0. What an encoder that is kept needs is H^0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kdkit.common.errors import ConfigError
from kdkit.losses import regression_loss
from kdkit.model.speech_model import SpeechModel
from kdkit.speech.frames import frame_mask, num_frames

TARGETS = ("h0", "front-end")
BY_NAME = {"h0": ("h0",), "front-end": ("front-end",), "both": TARGETS}  # what commands call them


@dataclass(frozen=True)
class Adaptation:
    """The first ``steps`` of a run: the front-end alone is regressed to H^0, the input of the teacher's first layer.

    With heads, a linear head stands on the front-end's output. Without (``DistillConfig.heads``), the front-end's
    output goes through the student's own positional convolution and LayerNorm, which stay as they are: what an encoder
    that is kept needs. ``distance`` "l1" or "l2". A learning rate that starts anew afterwards: ``TrainConfig.stages``.

    ``targets``: "h0", "front-end" (the output of the teacher's front-end, before positions), or both, whose losses are
    added. ``rate``: share of the learning rate in these steps; a front-end that begins from nothing may take larger
    steps than a network that knows something already.
    """

    steps: int
    distance: str = "l1"
    targets: tuple[str, ...] = ("h0",)
    rate: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "targets", tuple(self.targets))  # JSON gives lists
        if self.steps < 1:
            raise ConfigError(f"adaptation of {self.steps} steps: take 1 or more, or leave it out")
        if self.distance not in ("l1", "l2"):
            raise ConfigError(f"distance of the adaptation is {self.distance!r}: choose 'l1' or 'l2'")
        if not self.targets or len(set(self.targets)) < len(self.targets) or set(self.targets) - set(TARGETS):
            raise ConfigError(f"targets of the adaptation are {self.targets}: 'h0', 'front-end' or both")
        if not self.rate > 0:
            raise ConfigError(
                f"rate of the adaptation is {self.rate}: a share of the learning rate, more than 0"
            )


def adaptation_loss(
    adaptation: Adaptation,
    student: SpeechModel,
    head: nn.Module | None,
    inputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
) -> Tensor:
    """Distance of the front-end's output, through ``head`` (None: as it is), from ``targets`` (B, T, D) by their names.

    The head gives the predictions of all targets side by side, (B, T, targets x D).

    Of the student only the front-end gets a gradient, and nothing but it and the positional convolution is computed.
    """
    lengths = inputs["lengths"]
    features = student.front_end(inputs["waves"], lengths)
    mask = frame_mask(num_frames(lengths), features.shape[1])
    predictions = [None] * len(targets) if head is None else head(features).chunk(len(targets), -1)
    losses = []
    for name, prediction in zip(adaptation.targets, predictions, strict=True):
        same_frames(targets[name], features)
        if head is None and name == "front-end":
            prediction = features
        elif head is None:
            encoder = student.encoder
            fixed = {name: parameter.detach() for name, parameter in encoder.named_parameters()}
            prediction = functional_call(encoder, fixed, (features, mask, 0))[0]
        losses.append(regression_loss(prediction, targets[name], mask, 0.0, adaptation.distance))
    return torch.stack(losses).sum()


def same_frames(teacher: Tensor, student: Tensor) -> None:
    """Raises :class:`ConfigError` when two front-ends disagree on the number of frames."""
    if teacher.shape[1] != student.shape[1]:
        raise ConfigError(
            f"the teacher makes {teacher.shape[1]} frames of this batch, the student {student.shape[1]}: their "
            "front-ends must agree on the frame rate"
        )
