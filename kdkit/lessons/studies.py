"""Studies: several ways to distil, at equal steps and with several seeds, judged by one probe, with a verdict.

    trials = [Trial("regression", student, DistillConfig(pairs)), Trial("both", student, DistillConfig(pairs, ...))]
    findings = run_study(trials, teacher, judge, batches, recipe, seeds=(0, 1), out=folder)
    print(contrast(findings, "both", "regression"))

Every trial and seed is kept in the folder as it ends, so a study that was stopped goes on. A seed decides the new
weights of the student and the order of the speech.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from kdkit.common.errors import ConfigError
from kdkit.common.files import write_text
from kdkit.common.parallel import each_training
from kdkit.common.statistics import ratio_interval, verdict
from kdkit.distill import DistillConfig, DistillTask
from kdkit.losses import Loss
from kdkit.model.speech_model import ModelConfig, SpeechModel, parameter_count
from kdkit.probing import PhoneProbe
from kdkit.speech.manifest import speech_identity
from kdkit.students import new_student
from kdkit.teachers import Teacher
from kdkit.training import identity
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig


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
        """The study's recipe for this trial. After adaptation the learning rate starts anew."""
        adaptation = self.losses.adaptation
        if adaptation is None:
            return replace(common, seed=seed)
        steps = common.steps + (adaptation.steps if self.on_top else 0)
        return replace(common, seed=seed, steps=steps, stages=(adaptation.steps,))


def loss_variants(whole: bool = True) -> dict[str, dict]:
    """The ablation of the losses: settings of :class:`kdkit.distill.DistillConfig` by name.

    The three kinds of loss; with ``whole`` also the student variants, weights (lambda) that the paper's authors tried,
    and temperatures.
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


@dataclass(frozen=True)
class Finding:
    """What one trial came to with one seed: frames of unseen voices whose phone a probe reads off the last layer.

    ``hits`` and ``totals`` are frames of each test utterance; ``parts`` are the losses at the end, mean over the last
    tenth of the logged steps.
    """

    name: str
    seed: int
    parameters: int
    seconds: float  # of training
    parts: dict[str, float]
    hits: tuple[int, ...]
    totals: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        return sum(self.hits) / sum(self.totals)


def run_study(
    trials: Sequence[Trial],
    teacher: Teacher,
    judge: Callable[[SpeechModel], PhoneProbe],
    batches_of: Callable[[int], object],
    recipe: TrainConfig,
    seeds: Sequence[int],
    out: Path,
    prepare: Callable[[SpeechModel], None] = lambda student: None,
    resume: bool = True,
    jobs: int | None = 1,
) -> list[Finding]:
    """Distils every trial with every seed and probes the result.

    ``batches_of(seed)`` gives the speech in that seed's order; ``prepare(student)`` is for what a new student needs
    before it starts (Fbank statistics). Seeds are the outer loop: a study that is stopped early has whole rounds.
    ``jobs`` processes share the trainings (None: one for each core), with one thread each.

    Raises :class:`ConfigError` when two trials share a name.
    """
    names = [trial.name for trial in trials]
    if len(set(names)) < len(names):
        raise ConfigError(f"trials need names of their own, not {names}")

    teacher_weights = identity.weights(teacher.model)

    def run(task: tuple[int, Trial]) -> Finding:
        seed, trial = task
        folder = Path(out) / trial.name.replace(" ", "-").replace("/", "-") / f"seed-{seed}"
        own = trial.recipe(recipe, seed)
        batches = batches_of(seed)
        asked = {"steps": own.steps, "student": trial.student.to_dict(), "losses": asdict(trial.losses)}
        asked |= {"recipe": own.result(), "teacher": teacher_weights}
        asked |= {"speech": speech_identity(getattr(batches, "utterances", ()), times=False)}
        if trial.extra:
            asked["extra losses"] = {loss.name: loss.identity for loss in trial.extra}
        path = folder / "finding.json"
        if resume and (found := identity.kept(path, asked)):
            return Finding(**found)
        student = new_student(trial.student, teacher.model, seed)
        prepare(student)
        distilling = DistillTask(student, teacher, trial.losses, extra=copy.deepcopy(trial.extra))
        began, shown = time.perf_counter(), ("loss", *_PARTS, *(loss.name for loss in trial.extra))
        title = f"{trial.name}, seed {seed}"
        log = train(distilling, batches, own, folder, resume=resume, title=title)
        spent, tail = time.perf_counter() - began, log[-max(1, len(log) // 10) :]
        parts = {p: float(np.mean([row[p] for row in tail])) for p in log[-1] if p in shown}
        probe = judge(student)
        finding = Finding(
            trial.name, seed, parameter_count(student), spent, parts, probe.last_hits, probe.totals
        )
        write_text(path, json.dumps(asdict(finding) | {"asked": asked}) + "\n")
        return finding

    tasks = [(seed, trial) for seed in seeds for trial in trials]
    return each_training(run, tasks, jobs, Path(out).name)


_PARTS = ("regression", "discriminative", "spread", "codes")


@dataclass(frozen=True)
class Summary:
    """A trial over its seeds: mean accuracy, its 95 % interval over utterances, and the accuracy of every seed."""

    name: str
    accuracy: float
    interval: tuple[float, float]
    seeds: dict[int, float]


def summary(findings: Sequence[Finding], name: str) -> Summary:
    """Mean of a trial over its seeds; the interval draws test utterances again, for the mean of the seeds."""
    mine = _of(findings, name)
    hits = np.mean([finding.hits for finding in mine.values()], axis=0)
    totals = next(iter(mine.values())).totals
    seeds = {seed: finding.accuracy for seed, finding in mine.items()}
    return Summary(name, float(hits.sum() / sum(totals)), ratio_interval(hits, totals), seeds)


@dataclass(frozen=True)
class Contrast:
    """Accuracy of a trial minus that of another, paired over seeds and utterances; 95 % interval over utterances of the
    mean over seeds. ``verdict``: :func:`kdkit.common.statistics.verdict`.
    """

    name: str
    baseline: str
    difference: float
    interval: tuple[float, float]
    seeds: dict[int, float]

    @property
    def verdict(self) -> str:
        return verdict(self.interval, self.seeds.values())

    def __str__(self) -> str:
        low, high = (100 * end for end in self.interval)
        each = ", ".join(f"{100 * value:+.1f}" for value in self.seeds.values())
        return (
            f"{self.name} against {self.baseline}: {self.verdict}, {100 * self.difference:+.1f} points "
            f"({low:+.1f} to {high:+.1f}; each seed {each})"
        )


def contrast(findings: Sequence[Finding], name: str, baseline: str) -> Contrast:
    """Is trial ``name`` better than ``baseline``? Raises :class:`ConfigError` when they share no seed."""
    ours, theirs = _of(findings, name), _of(findings, baseline)
    shared = [seed for seed in ours if seed in theirs]
    if not shared:
        raise ConfigError(f"{name!r} and {baseline!r} have no seed in common: nothing to compare")
    change = np.mean([np.subtract(ours[seed].hits, theirs[seed].hits) for seed in shared], axis=0)
    totals = ours[shared[0]].totals
    seeds = {seed: ours[seed].accuracy - theirs[seed].accuracy for seed in shared}
    return Contrast(name, baseline, float(change.sum() / sum(totals)), ratio_interval(change, totals), seeds)


def _of(findings: Sequence[Finding], name: str) -> dict[int, Finding]:
    mine = {finding.seed: finding for finding in findings if finding.name == name}
    if not mine:
        raise ConfigError(f"no findings of {name!r}; there are {sorted({f.name for f in findings})}")
    return mine
