"""Distillation: a student learns to predict the teacher's hidden states through heads that are thrown away.

An Fbank student may begin with front-end adaptation: in the first steps its front-end alone learns, to give what the
teacher's first layer gets; then the losses take over (arXiv 2210.15631; notebooks 02 and 03).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kdkit.common.errors import ConfigError
from kdkit.common.validation import choice, number, whole
from kdkit.losses import DISTANCES, ClusterLoss, Loss, PairRegression, regression_loss
from kdkit.model.codebook import TAU, VARIANTS, ClusterHead
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.speech.augment import AugmentConfig, augment
from kdkit.speech.batches import to_device
from kdkit.speech.frames import frame_mask, num_frames
from kdkit.teachers import Teacher, fingerprint, origin

COLLAPSED = 0.05  # spread of the predictions, as a share of the targets' spread
LABELLER = "labeller"  # key of a second teacher's last hidden states
COLUMNS = "step", "loss", "lr", "grad_norm", "times_real_time", "adaptation", "spread", "codes"  # of the log


@dataclass(frozen=True)
class Adaptation:
    """Front-end adaptation, the first ``steps`` of a run: the front-end alone learns by regression.

    With heads, a linear head stands on the front-end's output. Without (``DistillConfig.heads``), H^0 is compared with
    the front-end's output after the student's own positional convolution and LayerNorm, which stay fixed: what an
    encoder that is kept needs. To let the learning rate start anew afterwards: ``TrainConfig.stages``.

    Args:
        targets: "h0", the input of the teacher's first layer; "front-end", the output of the teacher's front-end,
            before the positional convolution, which mixes 64 to 128 frames where an Fbank front-end sees a few; or
            "both", whose losses are added.
        rate: share of the learning rate in these steps; a front-end that starts from random weights may take larger
            steps than a trained network.
    """

    steps: int
    targets: str = "h0"
    rate: float = 1.0

    def __post_init__(self):
        whole(self.steps, "steps of the adaptation", 1, 10**9)
        choice(self.targets, "targets of the adaptation", ("h0", "front-end", "both"))
        number(self.rate, "rate of the adaptation", 1e-6, 1e6)

    @property
    def names(self) -> tuple[str, ...]:
        return ("h0", "front-end") if self.targets == "both" else (self.targets,)


@dataclass(frozen=True)
class DistillConfig:
    """``L = regression_weight * L_reg + discriminative_weight * L_disc`` (lambda in the paper: 0.2 to 1).

    ``pairs``: (student layer, teacher layer), 0 being the input of layer 1, for the regression loss. See
    :func:`layer_wise` and :func:`prediction_heads`. The discriminative loss stands on the last layer of both.
    """

    pairs: tuple[tuple[int, int], ...]
    regression_weight: float = 1.0
    cosine_weight: float = 1.0
    distance: str = "l1"  # "l1" | "l2", of adaptation, too
    discriminative_weight: float = 0.0
    variant: str = "codebook"  # "codebook" | "linear" | "hard": see kdkit.model.codebook.ClusterHead
    tau: float | None = None  # of the teacher; None: the codebook's own
    tau_student: float | None = None  # None: the teacher's; 1 leaves the student's scores as they are
    heads: bool = True  # False: the student's hidden states are compared with the teacher's as they are
    adaptation: Adaptation | None = None  # of the front-end, in the first steps
    front_end_rate: float = 1.0  # share of the learning rate that the front-end has after adaptation
    augmenting: AugmentConfig | None = None  # what the student hears; the teacher hears the speech as it is

    def __post_init__(self):
        object.__setattr__(self, "pairs", tuple((int(s), int(t)) for s, t in self.pairs))
        for name in ("regression_weight", "cosine_weight", "discriminative_weight", "front_end_rate"):
            number(getattr(self, name), name, 0, 1e6)
        for name in ("tau", "tau_student"):
            if getattr(self, name) is not None:
                number(getattr(self, name), name, *TAU)
        choice(self.distance, "distance", DISTANCES)
        choice(self.variant, "variant", VARIANTS)
        if self.regression_weight and not self.pairs:
            raise ConfigError(
                "no pairs of layers: the regression loss needs at least one (student, teacher) pair"
            )


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


def swap_losses(student: ModelConfig, adaptation_steps: int, targets: str = "h0") -> DistillConfig:
    """For a student with a swapped front-end; its teacher is the student before the swap. The new front-end is adapted,
    then the whole student follows the old one's hidden states, layer by layer and without heads.
    """
    return DistillConfig(
        layer_wise(student, student),
        heads=False,
        adaptation=Adaptation(adaptation_steps, targets) if adaptation_steps else None,
    )


class DistillTask(nn.Module):
    """One step of distillation for :func:`kdkit.training.loop.train`: teacher, student, heads, losses.

    ``labeller`` is a second teacher, whose cluster ids the discriminative loss follows; without one it is ``teacher``,
    computed once. ``extra``: losses of one's own (:class:`kdkit.losses.Loss`), beside those of ``config`` or, where its
    weights are 0, in their place.

    Raises :class:`ConfigError` before the first step for layers that do not exist, a missing codebook, or no loss.
    """

    frozen = ("teacher", "labeller", "codebook")
    drawn = ("heads", "adaptation_head", "cluster_head", "extra")

    def __init__(
        self,
        student: SpeechModel,
        teacher: Teacher,
        config: DistillConfig,
        labeller: Teacher | None = None,
        extra: Sequence[Loss] = (),
    ):
        super().__init__()
        labels = labeller or teacher
        self.student, self.config, self.share, self.adapting = student, config, 0.0, bool(config.adaptation)
        self.teacher, self.labeller = teacher.model, labels.model
        dims = student.config.dim, teacher.config.dim
        if not config.heads and dims[0] != dims[1]:
            raise ConfigError(
                f"without heads, student and teacher need the same width, not {dims[0]} and {dims[1]}"
            )
        pairs = config.pairs if config.regression_weight else ()
        self.losses: list[Loss] = []
        self.heads = nn.ModuleList(_head(*dims, config.heads) for _ in pairs)
        if pairs:
            of = PairRegression(self.heads, pairs, config.cosine_weight, config.distance)
            layers = tuple(layer for _, layer in pairs)
            self.losses.append(Loss("regression", config.regression_weight, of, layers))
        if config.adaptation is not None:
            self.adaptation_head = _head(dims[0], len(config.adaptation.names) * dims[1], config.heads)
        if config.discriminative_weight:
            self.codebook = labels.needed_codebook()
            self.cluster_head = ClusterHead(config.variant, student.config.dim, self.codebook)
            layer = LABELLER if self.labeller is not self.teacher else teacher.config.layers
            tau = config.tau or self.codebook.tau
            of = ClusterLoss(self.cluster_head, self.codebook, layer, tau, config.tau_student or tau)
            layers = () if layer == LABELLER else (layer,)
            self.losses.append(Loss("discriminative", config.discriminative_weight, of, layers))
        self.losses += extra
        self.extra = nn.ModuleList(loss.of for loss in extra if isinstance(loss.of, nn.Module))
        self._check(pairs)
        self.identity: str | None = None  # of the teacher, computed for cached targets
        self.quick: dict[str, nn.Module] = {}  # faster twins of frozen networks (kdkit.training.graphs)
        self.settings = {"student": student.config.to_dict(), "losses": asdict(config)}
        if extra:
            self.settings["extra losses"] = {loss.name: loss.identity for loss in extra}
        self.origin = {"teacher": origin(teacher.source), "labeller": labeller and origin(labeller.source)}

    def _check(self, pairs: Sequence[tuple[int, int]]) -> None:
        named = [loss.name for loss in self.losses]
        if not named:
            raise ConfigError("both weights are 0 and there is no extra loss: nothing to learn")
        if len({*named, *COLUMNS}) < len(named) + len(COLUMNS):
            raise ConfigError(f"losses need names of their own, not {named}, and none of the log's {COLUMNS}")
        wanted = [("student", s) for s, _ in pairs]
        wanted += [("teacher", layer) for loss in self.losses for layer in loss.layers]
        for name, layer in wanted:
            depth = getattr(self, name).config.layers
            if not 0 <= layer <= depth:
                raise ConfigError(
                    f"a loss names {name} layer {layer}: there are layers 0 to {depth}; name others"
                )

    @property
    def layers(self) -> set[int]:
        """Teacher layers that the losses need: what a :class:`kdkit.teachers.targets.TargetCache` must hold."""
        needed = {layer for loss in self.losses for layer in loss.layers}
        return needed | ({0} if self.config.adaptation and "h0" in self.config.adaptation.names else set())

    @property
    def rates(self) -> dict[str, float]:
        """Shares of the learning rate, for :func:`kdkit.training.loop.train`."""
        rate = self.config.adaptation.rate if self.adapting else self.config.front_end_rate
        return {"student.front_end.": rate}

    @property
    def leaves_some_out(self) -> bool:
        """True when in some steps some weights may get no gradient: in adaptation all but those of the front-end, and
        the last layers where no loss of ``config`` stands on the last one.
        """
        config, last = self.config, self.student.config.layers
        on_last = config.discriminative_weight or (
            config.regression_weight and any(s == last for s, _ in config.pairs)
        )
        return config.adaptation is not None or not on_last

    @property
    def stage(self) -> bool:
        """What :meth:`compute` depends on besides its inputs."""
        return self.adapting

    def size(self, batch) -> int:
        """Real frames: what the losses are means over."""
        return int(num_frames(batch.lengths).sum())

    def schedule(self, step: int, steps: int) -> None:
        """Called before each step; sets the share of the steps that is done, and the stage."""
        self.share = step / steps
        self.adapting = self.config.adaptation is not None and step < self.config.adaptation.steps

    def train(self, mode: bool = True) -> DistillTask:
        super().train(mode)
        for name in self.frozen:  # no dropout in the targets
            if hasattr(self, name):
                getattr(self, name).eval()
        return self

    def complaints(self, rows: list[dict]) -> list[str]:
        """Warnings when the student's predictions, or its cluster ids, no longer differ from frame to frame."""
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

    def forward(self, batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.compute(self.prepare(batch))

    def prepare(self, batch) -> dict[str, Tensor]:
        """Inputs of :meth:`compute`: everything that is read, drawn at random, or changes with the step.

        ``waves`` (B, S) for the student and, with augmentation, ``clean`` (B, S) for the teacher; ``lengths`` (B,);
        ``weights`` of the losses; with cached targets ``target_3`` (B, T, D) and so on.
        """
        inputs = {"waves": batch.waves, "lengths": batch.lengths}
        if self.training and self.config.augmenting is not None:
            inputs["waves"] = augment(batch.waves, batch.lengths, self.config.augmenting)
            inputs["clean"] = batch.waves
        weights = torch.tensor([loss.weight_at(self.share) for loss in self.losses])
        inputs["weights"] = to_device(weights, batch.waves.device)
        if batch.targets is not None:
            self.identity = self.identity or fingerprint(self.teacher)
            batch.targets.check(self.identity, self.layers)
            inputs |= {f"target_{layer}": states for layer, states in batch.targets.hidden.items()}
        return inputs

    def compute(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and parts: depends on ``inputs``, weights and dropout alone; the same operations for the same shapes."""
        if self.adapting:
            return self.adapt(inputs)
        states = self.targets(inputs, max(self.layers, default=0))
        output = self.student(inputs["waves"], inputs["lengths"])
        same_frames(next(iter(states.values())), output.last)
        total, parts, mask = torch.zeros((), device=output.last.device), {}, output.mask
        for loss, weight in zip(self.losses, inputs["weights"].unbind(), strict=True):
            value, beside = loss(output, states, mask)
            total = total + weight * value
            parts |= {loss.name: value} | beside
        return total, {name: part.detach() for name, part in parts.items()}

    def adapt(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of front-end adaptation. Only the front-ends, and positions for H^0, are computed; in the student only
        the front-end (and its head) gets a gradient.
        """
        names, lengths, targets = self.config.adaptation.names, inputs["lengths"], {}
        if "h0" in names:
            targets["h0"] = self.targets(inputs, 0)[0]
        if "front-end" in names:  # no layer: no cache holds it
            with torch.no_grad():
                waves = inputs.get("clean", inputs["waves"])
                targets["front-end"] = self._frozen("teacher").front_end(waves, lengths)
        features = self.student.front_end(inputs["waves"], lengths)
        mask = frame_mask(num_frames(lengths), features.shape[1])
        if self.config.heads:
            predictions = self.adaptation_head(features).chunk(len(names), -1)
        else:
            fixed = {name: p.detach() for name, p in self.student.encoder.named_parameters()}
            predictions = [
                features
                if name == "front-end"
                else functional_call(self.student.encoder, fixed, (features, mask, 0))[0]
                for name in names
            ]
        for target in targets.values():
            same_frames(target, features)
        losses = [
            regression_loss(prediction, targets[name], mask, 0.0, self.config.distance)
            for name, prediction in zip(names, predictions, strict=True)
        ]
        loss = torch.stack(losses).sum()
        return loss, {"adaptation": loss.detach()}

    @torch.no_grad()
    def targets(self, inputs: Mapping[str, Tensor], depth: int | None = None) -> dict[int | str, Tensor]:
        """The teacher's hidden states by layer, (B, T, D): those of the batch, or computed here up to ``depth``; with
        a second teacher also its last ones, as ``LABELLER``.
        """
        waves, lengths = inputs.get("clean", inputs["waves"]), inputs["lengths"]
        states = {int(n.split("_")[1]): t for n, t in inputs.items() if n.startswith("target_")}
        if not states:
            states = dict(enumerate(self._frozen("teacher")(waves, lengths, depth=depth).hidden))
        if not self.adapting and self.labeller is not self.teacher:
            states[LABELLER] = self._frozen("labeller")(waves, lengths).last
        return states

    def _frozen(self, name: str) -> nn.Module:
        return self.quick.get(name) or getattr(self, name)


def same_frames(teacher: Tensor, student: Tensor) -> None:
    """Raises :class:`ConfigError` when two front-ends disagree on the number of frames."""
    if teacher.shape[1] != student.shape[1]:
        raise ConfigError(
            f"the teacher makes {teacher.shape[1]} frames of this batch, the student {student.shape[1]}: their "
            "front-ends must agree on the frame rate"
        )


def _head(student: int, teacher: int, wanted: bool) -> nn.Module:
    return nn.Linear(student, teacher) if wanted else nn.Identity()
