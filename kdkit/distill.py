"""Distillation: a student learns to predict the teacher's hidden states through heads that are thrown away.

A Fbank student may begin with front-end adaptation (DESIGN 1.4): for the first steps only its front-end learns, to give
what the teacher's first layer gets; then the losses take over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from kdkit.adaptation import Adaptation, adaptation_loss, same_frames
from kdkit.common.errors import ConfigError
from kdkit.losses import discriminative_loss, hard_label_loss, mean_over, regression_loss
from kdkit.model.codebook import VARIANTS, ClusterHead
from kdkit.model.speech_model import ModelConfig, Output, SpeechModel
from kdkit.speech.augment import AugmentConfig, augment
from kdkit.speech.batches import to_device
from kdkit.speech.frames import num_frames
from kdkit.teachers import Teacher, fingerprint, origin

if TYPE_CHECKING:
    from kdkit.speech.batches import Targets

COLLAPSED = 0.05  # spread of the predictions, as a share of that of the targets

Schedule = float | tuple[tuple[float, float], ...]
"""A weight: a number, or (share of the steps, number) points joined by straight lines."""


@dataclass(frozen=True)
class DistillConfig:
    """``L = regression_weight * L_reg + discriminative_weight * L_disc`` (lambda in the paper: 0.2 to 1).

    ``pairs``: (student layer, teacher layer), 0 being the input of layer 1, for the regression loss. See
    :func:`layer_wise` and :func:`prediction_heads`. The discriminative loss stands on the last layer of both.
    """

    pairs: tuple[tuple[int, int], ...]
    regression_weight: Schedule = 1.0
    cosine_weight: float = 1.0
    distance: str = "l1"  # "l1" | "l2"
    discriminative_weight: Schedule = 0.0
    variant: str = "codebook"  # "codebook" | "linear" | "hard": see kdkit.model.codebook.ClusterHead
    tau: float | None = None  # of the teacher; None: the codebook's own
    tau_student: float | None = None  # None: the teacher's; 1 leaves the student's logits as they are
    heads: bool = True  # False: the student's hidden states are compared with the teacher's as they are
    adaptation: Adaptation | None = None  # of the front-end, in the first steps
    front_end_rate: float = 1.0  # share of the learning rate that the front-end has after adaptation
    augmenting: AugmentConfig | None = (
        None  # what the student hears; the teacher always hears the speech as it is
    )

    def __post_init__(self):
        # JSON gives lists and dicts
        if isinstance(self.adaptation, Mapping):
            object.__setattr__(self, "adaptation", Adaptation(**self.adaptation))
        object.__setattr__(self, "pairs", tuple((int(s), int(t)) for s, t in self.pairs))
        for name in ("regression_weight", "discriminative_weight"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)):
                object.__setattr__(self, name, tuple((float(a), float(b)) for a, b in value))
            if min(value_at(getattr(self, name), share) for share in _corners(getattr(self, name))) < 0:
                raise ConfigError(f"{name} is {value}: weights are 0 or more")
        if not self.front_end_rate >= 0:
            raise ConfigError(
                f"front_end_rate is {self.front_end_rate}: a share of the learning rate, 0 or more"
            )
        for name in ("tau", "tau_student"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: a temperature is more than 0")
        if self.distance not in ("l1", "l2"):
            raise ConfigError(f"distance is {self.distance!r}: choose 'l1' or 'l2'")
        if self.variant not in VARIANTS:
            raise ConfigError(f"variant is {self.variant!r}: choose one of {', '.join(VARIANTS)}")
        if self.uses_regression and not self.pairs:
            raise ConfigError(
                "no pairs of layers: the regression loss needs at least one (student, teacher) pair"
            )
        if not (self.uses_regression or self.uses_discriminative):
            raise ConfigError(
                "both weights are 0: nothing to learn; set regression_weight or discriminative_weight"
            )

    @property
    def uses_regression(self) -> bool:
        return any(value_at(self.regression_weight, share) for share in _corners(self.regression_weight))

    @property
    def uses_discriminative(self) -> bool:
        return any(
            value_at(self.discriminative_weight, share) for share in _corners(self.discriminative_weight)
        )


def value_at(weight: Schedule, share: float) -> float:
    """A scheduled weight when ``share`` (0..1) of the steps is done."""
    if isinstance(weight, (int, float)):
        return float(weight)
    return float(np.interp(share, *zip(*weight, strict=True)))


def _corners(weight: Schedule) -> list[float]:
    return [0.0] if isinstance(weight, (int, float)) else [share for share, _ in weight]


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


def swap_losses(
    student: ModelConfig, adaptation_steps: int, targets: tuple[str, ...] = ("h0",)
) -> DistillConfig:
    """For a student whose front-end was swapped, with the student it was made of as the teacher: its new front-end is
    adapted, then all of it follows the old one's hidden states, layer by layer and without heads.
    """
    return DistillConfig(
        layer_wise(student, student),
        heads=False,
        adaptation=Adaptation(adaptation_steps, targets=targets) if adaptation_steps else None,
    )


class DistillTask(nn.Module):
    """One step of distillation for :func:`kdkit.training.loop.train`: teacher, student, heads, losses.

    ``labeller`` is a second teacher, whose cluster ids the discriminative loss follows; without one it is ``teacher``,
    computed once. Raises :class:`ConfigError` before the first step for layers that do not exist or a missing codebook.
    """

    frozen = ("teacher", "labeller", "codebook")
    drawn = ("heads", "adaptation_head", "cluster_head")

    def __init__(
        self, student: SpeechModel, teacher: Teacher, config: DistillConfig, labeller: Teacher | None = None
    ):
        super().__init__()
        self.student, self.config, self.share, self.adapting = student, config, 0.0, bool(config.adaptation)
        self.teacher, self.labeller = teacher.model, (labeller or teacher).model
        depths = student.config.layers, teacher.config.layers
        for pair in config.pairs:
            for name, layer, depth in zip(("student", "teacher"), pair, depths, strict=True):
                if not 0 <= layer <= depth:
                    raise ConfigError(
                        f"pair {pair} names {name} layer {layer}: there are layers 0 to {depth}"
                    )
        dims = student.config.dim, teacher.config.dim
        if not config.heads and dims[0] != dims[1]:
            raise ConfigError(
                f"without heads, student and teacher need the same width, not {dims[0]} and {dims[1]}"
            )
        self.heads = nn.ModuleList(_head(*dims, config.heads) for _ in config.pairs if config.uses_regression)
        if config.adaptation is not None:
            targets = len(config.adaptation.targets)
            self.adaptation_head = _head(dims[0], targets * dims[1], config.heads)
        if config.uses_discriminative:
            self.codebook = (labeller or teacher).codebook
            if self.codebook is None:
                raise ConfigError(
                    f"teacher {(labeller or teacher).source!r} has no codebook: make one of k-means centroids "
                    "(Codebook.from_centroids), give a second teacher that has one, or set discriminative_weight to 0"
                )
            width = self.codebook.final_proj.in_features
            if width != self.labeller.config.dim:
                raise ConfigError(
                    f"the codebook is for width {width}, its teacher is {self.labeller.config.dim} wide"
                )
            self.tau = config.tau or self.codebook.tau
            self.cluster_head = ClusterHead(
                config.variant, student.config.dim, self.codebook, config.tau_student or self.tau
            )

        self.identity = None  # of the teacher, once it is needed
        self.quick: dict[
            str, nn.Module
        ] = {}  # faster twins of frozen networks, by name (kdkit.training.graphs)
        self.settings = {"student": student.config.to_dict(), "losses": asdict(config)}
        self.origin = {"teacher": origin(teacher.source), "labeller": labeller and origin(labeller.source)}

    @property
    def layers(self) -> set[int]:
        """Teacher layers that the losses need: what a :class:`kdkit.teachers.targets.TargetCache` must hold."""
        needed = {t for _, t in self.config.pairs} if self.config.uses_regression else set()
        if self.config.uses_discriminative and self.labeller is self.teacher:
            needed.add(self.teacher.config.layers)
        return needed | ({0} if self.config.adaptation and "h0" in self.config.adaptation.targets else set())

    @property
    def rates(self) -> dict[str, float]:
        """Shares of the learning rate, for :func:`kdkit.training.loop.train`."""
        rate = self.config.adaptation.rate if self.adapting else self.config.front_end_rate
        return {"student.front_end.": rate}

    @property
    def leaves_some_out(self) -> bool:
        """True when in some steps some weights get no gradient: in adaptation all but those of the front-end, and the
        last layers where no loss stands on the last one.
        """
        if self.config.adaptation is not None:
            return True
        return (
            not self.config.uses_discriminative
            and max(s for s, _ in self.config.pairs) < self.student.config.layers
        )

    def size(self, batch) -> int:
        """Real frames: what the losses are means over."""
        return int(num_frames(batch.lengths).sum())

    def complaints(self, rows: list[dict]) -> list[str]:
        """Says so when the student's predictions, or its cluster ids, no longer differ from frame to frame."""
        said = []
        for part, words in (
            ("spread", "predictions vary less than {} as much as the teacher's hidden states"),
            ("codes", "best cluster ids are less than {} as many as the teacher's"),
        ):
            values = [row[part] for row in rows if part in row]
            if len(values) >= 10 and max(values[-5:]) < COLLAPSED:
                told = words.format(f"{100 * COLLAPSED:.0f} %")
                said.append(f"the student has collapsed: its {told}; lower lr, or look at the speech")
        return said

    @property
    def stage(self) -> bool:
        """What :meth:`compute` depends on besides its inputs."""
        return self.adapting

    def _frozen(self, name: str) -> nn.Module:
        return self.quick.get(name) or getattr(self, name)

    def train(self, mode: bool = True) -> DistillTask:
        super().train(mode)
        for name in self.frozen:  # no dropout in the targets, ever
            if hasattr(self, name):
                getattr(self, name).eval()
        return self

    def schedule(self, step: int, steps: int) -> None:
        """Called before each step: for weights that change, and for the stage."""
        self.share = step / steps
        self.adapting = self.config.adaptation is not None and step < self.config.adaptation.steps

    def forward(self, batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.compute(self.prepare(batch))

    def prepare(self, batch) -> dict[str, Tensor]:
        """What :meth:`compute` needs of a batch: everything that is drawn at random, read, or changes with the step.

        ``waves`` for the student and, where it hears others, ``clean`` for the teacher, (B, S); ``lengths`` (B,);
        ``weights`` (2,) of the losses; ``target_3`` (B, T, D) and so on, where the batch brings the teacher's states.
        """
        inputs = {"waves": batch.waves, "lengths": batch.lengths}
        if self.training and self.config.augmenting is not None:
            inputs["waves"] = augment(batch.waves, batch.lengths, self.config.augmenting)
            inputs["clean"] = batch.waves
        weights = self.config.regression_weight, self.config.discriminative_weight
        values = torch.tensor([value_at(weight, self.share) for weight in weights])
        inputs["weights"] = to_device(values, batch.waves.device)
        if batch.targets is not None:
            self._check_cached(batch.targets)
            inputs |= {f"target_{layer}": states for layer, states in batch.targets.hidden.items()}
        return inputs

    def compute(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and parts: a function of ``inputs`` and weights (and dropout) alone, the same operations every time."""
        waves, lengths = inputs["waves"], inputs["lengths"]
        if self.adapting:
            return self.adapt(inputs)
        target = self.targets(inputs, max(self.layers, default=0))
        output = self.student(waves, lengths)
        mask = output.mask
        same_frames(next(iter(target.values())), output.last)
        loss, parts = torch.zeros((), device=waves.device), {}
        if self.config.uses_regression:
            parts["regression"], parts["spread"] = self.regression(output, target)
            loss = loss + inputs["weights"][0] * parts["regression"]
        if self.config.uses_discriminative:
            with torch.no_grad():
                if self.labeller is not self.teacher:
                    last = self._frozen("labeller")(inputs.get("clean", waves), lengths).last
                else:
                    last = target[self.labeller.config.layers]
                teacher = self.codebook(last) * (self.codebook.tau / self.tau)  # (B, T, K)
            distance = hard_label_loss if self.config.variant == "hard" else discriminative_loss
            logits = self.cluster_head(output.last)
            parts["discriminative"] = distance(logits, teacher, mask)
            parts["codes"] = _ids_in_use(logits, mask) / _ids_in_use(teacher, mask)
            loss = loss + inputs["weights"][1] * parts["discriminative"]
        return loss, {name: part.detach() for name, part in parts.items()}

    def adapt(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of front-end adaptation: nothing but the front-ends is computed, and of the student's only its own
        front-end (and its head) gets a gradient.
        """
        adaptation, wanted = self.config.adaptation, {}
        if "h0" in adaptation.targets:
            wanted["h0"] = self.targets(inputs, 0)[0]
        if "front-end" in adaptation.targets:  # no layer: no cache holds it
            with torch.no_grad():
                waves = inputs.get("clean", inputs["waves"])
                wanted["front-end"] = self._frozen("teacher").front_end(waves, inputs["lengths"])
        head = self.adaptation_head if self.config.heads else None
        loss = adaptation_loss(adaptation, self.student, head, inputs, wanted)
        return loss, {"adaptation": loss.detach()}

    @torch.no_grad()
    def targets(self, inputs: Mapping[str, Tensor], depth: int | None = None) -> Mapping[int, Tensor]:
        """The teacher's hidden states by layer, (B, T, D): those of the batch, or computed here up to ``depth``."""
        brought = {int(n.split("_")[1]): states for n, states in inputs.items() if n.startswith("target_")}
        if brought:
            return brought
        teacher = self._frozen("teacher")
        waves = inputs.get("clean", inputs["waves"])
        return dict(enumerate(teacher(waves, inputs["lengths"], depth=depth).hidden))

    def _check_cached(self, cached: Targets) -> None:
        if self.identity is None:
            self.identity = fingerprint(self.teacher)
        if cached.teacher != self.identity:
            raise ConfigError(
                f"cached targets are of another teacher ({cached.teacher}, this one is {self.identity}); "
                "build the cache with this one"
            )
        missing = sorted(self.layers - cached.hidden.keys())
        if missing:
            raise ConfigError(
                f"cached targets lack the layers {missing}; build the cache with {sorted(self.layers)}"
            )

    def regression(self, output: Output, target: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Regression loss, mean over the pairs; and how much the predictions of the last pair vary over the frames, as
        a share of the variation of their targets: near 0, the student has collapsed.
        """
        weights, mask = (self.config.cosine_weight, self.config.distance), output.mask
        losses = []
        for head, (s, t) in zip(self.heads, self.config.pairs, strict=True):
            prediction, wanted = head(output.hidden[s]), target[t]
            losses.append(regression_loss(prediction, wanted, mask, *weights))
        with torch.no_grad():
            p, h = (_deviation(states.float(), mask).mean() for states in (prediction, wanted))
            spread = p / h.clamp_min(1e-6)
        return torch.stack(losses).mean(), spread


def _head(student: int, teacher: int, wanted: bool) -> nn.Module:
    return nn.Linear(student, teacher) if wanted else nn.Identity()


def _deviation(states: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation of (B, T, D) over the real frames: (D,)."""
    return mean_over(mask, (states - mean_over(mask, states)).square()).sqrt()


def _ids_in_use(logits: Tensor, mask: Tensor) -> Tensor:
    """Number of cluster ids that are the best one of some real frame of (B, T, K)."""
    best = logits.argmax(-1)[..., None] == torch.arange(logits.shape[-1], device=logits.device)
    return (best & mask[..., None]).flatten(0, 1).any(0).sum()
