"""What :func:`kdkit.lessons.experiments.run_experiment` runs: ways to distil, judged by a phone probe, and starts of a
fine-tuning, judged by their WER.

    trials = [Trial("regression", student, DistillConfig(pairs)), Trial("both", student, DistillConfig(pairs, ...))]
    study = Distillations(trials, teacher, judge, batches_of, recipe)

    starts = {"scratch": lambda speech, seed: new_student("tiny-sw-fbank", seed=seed), "distilled": ...}
    few_labels = FineTunings(starts, budgets_of(speech, [1, 10]), test, recipe)
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from kdkit.common.code_identity import code_identity
from kdkit.common.errors import ConfigError
from kdkit.distill import DistillConfig, DistillTask
from kdkit.lessons.experiments import CER, PHONES, WER, Finding
from kdkit.losses import Loss
from kdkit.model.speech_model import ModelConfig, SpeechModel, parameter_count
from kdkit.probing import PhoneProbe
from kdkit.recognition.evaluate import evaluate
from kdkit.recognition.finetune import FineTuneConfig, fine_tune
from kdkit.speech.manifest import Utterance, speech_identity
from kdkit.students import new_student
from kdkit.teachers import Teacher
from kdkit.training import identity
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig

# --- distillation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """One way to distil: a structure and its losses. ``on_top``: steps of front-end adaptation come before the steps of
    the study; by default they are some of them. ``extra``: losses of one's own; every training starts from a copy.
    """

    name: str
    student: ModelConfig
    losses: DistillConfig
    on_top: bool = False
    extra: tuple[Loss, ...] = ()

    def recipe(self, common: TrainConfig, seed: int) -> TrainConfig:
        """The study's recipe for this trial. After adaptation the learning rate schedule starts again."""
        adaptation = self.losses.adaptation
        if adaptation is None:
            return replace(common, seed=seed)
        steps = common.steps + (adaptation.steps if self.on_top else 0)
        return replace(common, seed=seed, steps=steps, stages=(adaptation.steps,))


def loss_variants(whole: bool = True) -> dict[str, dict]:
    """The ablation of the losses: settings of :class:`kdkit.distill.DistillConfig` by name.

    The three kinds of loss; with ``whole`` also the student variants, the weights (lambda) that the paper's authors
    tried, and temperatures.
    """
    both = {"discriminative_weight": 0.4}
    losses = {
        "regression": {},
        "discriminative": {"regression_weight": 0.0, "discriminative_weight": 1.0},
        "both": both,
    }
    if whole:
        losses |= {
            f"both, lambda {weight}": {"discriminative_weight": weight} for weight in (0.2, 0.6, 0.8, 1.0)
        }
        losses |= {f"both, {variant}": both | {"variant": variant} for variant in ("linear", "hard")}
        losses |= {f"both, tau {tau}": both | {"tau": tau} for tau in (0.05, 0.2)}
        losses["both, linear, student's tau 1"] = both | {"variant": "linear", "tau_student": 1.0}
    return losses


def _nothing(student: SpeechModel) -> None:
    pass


@dataclass(frozen=True)
class Distillations:
    """Every trial distilled from ``teacher`` at equal steps, and probed by ``judge``.

    ``batches_of(seed)`` gives the speech in that seed's order; a seed also decides the student's new weights.
    ``prepare(student)`` is for what a new student needs before it starts (Fbank statistics).
    Raises :class:`ConfigError` when two trials share a name.
    """

    trials: Sequence[Trial]
    teacher: Teacher
    judge: Callable[[SpeechModel], PhoneProbe]
    batches_of: Callable[[int], object]
    common: TrainConfig
    prepare: Callable[[SpeechModel], None] = _nothing

    def __post_init__(self) -> None:
        names = [trial.name for trial in self.trials]
        if len(set(names)) < len(names):
            raise ConfigError(f"trials need names of their own, not {names}")

    def cases(self) -> Sequence[Trial]:
        return self.trials

    def folder(self, trial: Trial, seed: int) -> str:
        return f"{_slug(trial.name)}/seed-{seed}"

    def identity(self, trial: Trial, seed: int) -> dict:
        recipe, batches = trial.recipe(self.common, seed), self.batches_of(seed)
        own = {"extra losses": {loss.name: loss.identity for loss in trial.extra}} if trial.extra else {}
        return (
            own
            | {
                "steps": recipe.steps,
                "student": trial.student.to_dict(),
                "losses": asdict(trial.losses),
                "recipe": recipe.result(),
                "speech": speech_identity(getattr(batches, "utterances", ()), times=False),
                "batch seconds": getattr(batches, "seconds_per_batch", None),
            }
            | self._shared
        )

    @cached_property
    def _shared(self) -> dict:
        """What decides the findings of all trials."""
        return {
            "teacher": identity.weights(self.teacher.model),
            "judge": code_identity(self.judge),
            "preparation": code_identity(self.prepare),
        }

    def train(self, trial: Trial, seed: int, folder: Path, resume: bool) -> Finding:
        recipe = trial.recipe(self.common, seed)
        student = new_student(trial.student, self.teacher.model, seed)
        self.prepare(student)
        task = DistillTask(student, self.teacher, trial.losses, extra=copy.deepcopy(trial.extra))
        began, shown = time.perf_counter(), (*_LOSSES, *(loss.name for loss in trial.extra))
        title = f"{trial.name}, seed {seed}"
        log = train(task, self.batches_of(seed), recipe, folder, resume=resume, title=title)
        seconds, tail = time.perf_counter() - began, log[-max(1, len(log) // 10) :]
        losses = {part: float(np.mean([row[part] for row in tail])) for part in log[-1] if part in shown}
        probe = self.judge(student)
        return Finding(
            name=trial.name,
            seed=seed,
            counts=probe.layers[-1].hits,
            totals=probe.layers[-1].totals,
            measure=PHONES,
            steps=self.common.steps,
            parameters=parameter_count(student),
            seconds=seconds,
            losses=losses,
        )


_LOSSES = ("loss", "regression", "discriminative", "spread", "codes")  # of a row of the training log


# --- fine-tuning -----------------------------------------------------------------------------------------------------

Start = Callable[[Sequence[Utterance], int], SpeechModel]  # (labelled speech, seed) -> a model to fine-tune


@dataclass(frozen=True)
class FineTunings:
    """Every start fine-tuned on every label budget at equal steps; the last step is scored on ``test`` by greedy
    decoding, or the weights that ``dev`` chooses (:func:`kdkit.recognition.finetune.fine_tune`).

    ``budgets``: labelled speech by minutes. A seed decides the head, the masks, the order of the speech, and weights
    that begin as random numbers. ``measure``: WER, or CER, which falls earlier in a short training. Only the findings
    are kept, no weights.

    Raises :class:`ConfigError` for another measure.
    """

    starts: Mapping[str, Start]
    budgets: Mapping[float, Sequence[Utterance]]
    test: Sequence[Utterance]
    recipe: TrainConfig
    config: FineTuneConfig = field(default_factory=FineTuneConfig)
    dev: Sequence[Utterance] = ()
    measure: str = WER

    def __post_init__(self) -> None:
        if self.measure not in (WER, CER):
            raise ConfigError(f"a fine-tuning is measured by {WER} or {CER}, not by {self.measure!r}")

    def cases(self) -> Sequence[tuple[float, str]]:
        return [(minutes, start) for minutes in self.budgets for start in self.starts]

    def folder(self, case: tuple[float, str], seed: int) -> str:
        minutes, start = case
        return f"{_slug(start)}/{minutes:g}min-seed{seed}"

    def identity(self, case: tuple[float, str], seed: int) -> dict:
        minutes, start = case
        speech = {"train": self.budgets[minutes], "dev": self.dev, "test": self.test}
        told = {name: speech_identity(some, times=False) for name, some in speech.items()}
        if (case, seed) not in self._begun:
            model = self.starts[start](self.budgets[minutes], seed)
            self._begun[case, seed] = {"model": model.config.to_dict()} | identity.weights(model)
        told |= self._begun[case, seed]
        other = {} if self.measure == WER else {"measure": self.measure}
        return replace(self.recipe, seed=seed).result() | {"config": asdict(self.config)} | told | other

    @cached_property
    def _begun(self) -> dict[tuple, dict]:
        """By case and seed: the model that a training starts from, which may be large, is made and hashed once."""
        return {}

    def train(self, case: tuple[float, str], seed: int, folder: Path, resume: bool) -> Finding:
        minutes, start = case
        speech, recipe = self.budgets[minutes], replace(self.recipe, seed=seed)
        title = f"{start}, {round(minutes, 1):g} min, seed {seed}"
        model = self.starts[start](speech, seed).requires_grad_(True)
        recogniser, facts = fine_tune(model, speech, recipe, folder, self.dev, self.config, resume, title)
        score = evaluate(recogniser, list(self.test)).score
        for weights in ("checkpoints", "candidates"):
            shutil.rmtree(folder / weights, ignore_errors=True)
        counts, totals = score.word_errors, score.word_counts
        if self.measure == CER:
            counts, totals = score.character_errors, score.character_counts
        return Finding(
            name=start,
            seed=seed,
            counts=counts,
            totals=totals,
            measure=self.measure,
            steps=facts["steps"],
            minutes=minutes,
            parameters=facts["parameters"],
            seconds=facts["seconds"],
        )


def _slug(name: str) -> str:
    return name.replace(" ", "-").replace("/", "-")
