"""Experiments: several trials, each with several seeds, kept as they end, summarised and compared in pairs.

    study = Distillations(trials, teacher, judge, batches_of, recipe)       # or FineTunings(...): kdkit.lessons.trials
    findings = run_experiment(study, seeds=(0, 1), out=folder)
    print(compare(findings, "both", "regression"))

    findings = shipped_findings("low_resource")
    print(compare(findings, "tiny-sw-fbank distilled", "tiny-sw-fbank scratch", minutes=10))

Every training is kept in the folder as it ends, so an experiment that was stopped goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from kdkit import teachers
from kdkit.common.errors import CheckpointError, ConfigError, OtherRunError
from kdkit.common.files import write_text
from kdkit.common.parallel import each_training
from kdkit.common.statistics import Comparison, compare_counts, ratio_interval
from kdkit.common.wording import percent
from kdkit.training import identity
from kdkit.training.processes import processes

FINDING = "finding.json"  # in the folder of each training
WER, CER, PHONES = "WER", "CER", "phone accuracy"  # what a finding measures


@dataclass(frozen=True)
class Finding:
    """What one trial came to with one seed.

    ``counts`` of each test utterance are word errors; where ``measure`` is "CER" errors of letters, where it is "phone
    accuracy" frames whose phone a linear probe read off the last layer. ``totals`` are the words, letters or frames of
    each. ``steps`` (of a distillation without those of an adaptation on top) and ``seconds``: of the
    training; ``minutes``: of labelled speech (0: none); ``losses``: at the end of a distillation.
    """

    name: str
    seed: int
    counts: tuple[int, ...]
    totals: tuple[int, ...]
    measure: str = WER
    steps: int = 0
    minutes: float = 0.0
    parameters: int = 0
    seconds: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """The measure, as a share."""
        return sum(self.counts) / sum(self.totals)


Case = TypeVar("Case")


class Experiment(Protocol[Case]):
    """What :func:`run_experiment` runs: its trials, and how one is trained and judged."""

    def cases(self) -> Sequence[Case]: ...

    def folder(self, case: Case, seed: int) -> str:
        """Where a training is kept, below the folder of the experiment."""

    def identity(self, case: Case, seed: int) -> dict:
        """All that decides the finding."""

    def train(self, case: Case, seed: int, folder: Path, resume: bool) -> Finding: ...


def run_experiment(
    experiment: Experiment,
    seeds: Sequence[int],
    out: Path,
    resume: bool = True,
    jobs: int | None = 1,
    replace_others: bool = False,
) -> list[Finding]:
    """Trains and judges every trial with every seed.

    Seeds are the outer loop: an experiment that is stopped early has whole rounds. With ``resume``, what is in ``out``
    with the same settings, speech and weights is taken from there. ``jobs`` processes share the trainings (None: one
    for each core), with one thread each.

    Raises :class:`OtherRunError` where ``out`` holds a training that was stopped and was made of something else; with
    ``replace_others`` it starts anew.
    """

    def run(task: tuple[int, object]) -> Finding:
        seed, case = task
        folder = Path(out) / experiment.folder(case, seed)
        path, asked = folder / FINDING, experiment.identity(case, seed)
        if resume and (kept := identity.kept(path, asked)):
            return _finding(kept)
        try:
            found = experiment.train(case, seed, folder, resume)
        except OtherRunError:
            if not replace_others:
                raise
            found = experiment.train(case, seed, folder, False)
        if processes().is_main_process:
            write_text(path, json.dumps(asdict(found) | {"asked": asked}) + "\n")
        return found

    tasks = [(seed, case) for seed in seeds for case in experiment.cases()]
    return each_training(run, tasks, jobs, Path(out).name)


def is_kept(experiment: Experiment[Case], case: Case, seed: int, out: Path) -> bool:
    """Is there a finding of this training, with the same settings, in ``out``?"""
    path = Path(out) / experiment.folder(case, seed) / FINDING
    return identity.kept(path, experiment.identity(case, seed)) is not None


# --- files -----------------------------------------------------------------------------------------------------------


def _finding(row: dict, **shared: object) -> Finding:
    """A finding from JSON; ``shared``: what stands once for all findings of a file."""
    row = shared | row
    return Finding(**row | {name: tuple(row[name]) for name in ("counts", "totals")})


def kept_findings(out: Path) -> list[Finding]:
    """All that :func:`run_experiment` has kept in ``out``, in whichever process, by name, minutes and seed."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in Path(out).glob("*/*/finding.json")]
    findings = [_finding({name: row[name] for name in row if name != "asked"}) for row in rows]
    return sorted(findings, key=lambda found: (found.name, found.minutes, found.seed))


def save_findings(path: Path, findings: Sequence[Finding], **settings: object) -> None:
    """Findings on one test set as JSON, with the ``settings`` that they share.

    Raises :class:`ConfigError` when they are of different test sets.
    """
    shared = {(found.measure, found.totals) for found in findings}
    if len(shared) != 1:
        raise ConfigError(f"{path}: findings on {len(shared)} test sets do not go into one file")
    measure, totals = shared.pop()
    rows = [asdict(found) for found in findings]
    for row in rows:
        del row["measure"], row["totals"]
    head = json.dumps(settings | {"measure": measure, "totals": totals})
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_text(path, f'{head[:-1]}, "findings": [\n{lines}\n]}}\n')


def load_findings(path: Path) -> list[Finding]:
    """What :func:`save_findings` wrote."""
    kept = json.loads(Path(path).read_text(encoding="utf-8"))
    return [_finding(row, measure=kept["measure"], totals=kept["totals"]) for row in kept["findings"]]


def shipped_findings(name: str) -> list[Finding]:
    """Findings that ship with the kit: "low_resource", "study_losses", "study_structures", "study_front_ends",
    "study_fbank_levers", "convergence", "digits_theo" and those of other speakers.

    Trained and judged when the kit was made, not in this run: say so wherever they are shown.
    """
    return load_findings(_shipped(f"{name}.json"))


def shipped_scores() -> list[dict]:
    """Rows of the shipped ``metrics.json``: system, start, minutes, split, wer, wer_interval, cer, steps, seed, ...

    They were measured when the shipped models were made, not in this run: say so wherever they are shown.
    """
    return json.loads(_shipped("metrics.json").read_text(encoding="utf-8"))


def _shipped(name: str) -> Path:
    path = teachers.ASSETS / name
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; it is made with the shipped models by data_scripts")
    return path


# --- what they come to -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """A trial over its seeds: mean of its measure, 95 % interval over utterances, and the measure of every seed."""

    value: float
    interval: tuple[float, float]
    seeds: dict[int, float]

    def __str__(self) -> str:
        """ "23.1 % (21.5 to 24.8)"."""
        return percent(self.value, self.interval)

    @property
    def each_seed(self) -> str:
        """Per cent of each seed: "22.0, 24.2"."""
        return ", ".join(f"{100 * value:.1f}" for value in self.seeds.values())


def summary(
    findings: Sequence[Finding], name: str, minutes: float | None = None, steps: int | None = None
) -> Summary:
    """Mean of a trial over its seeds; the interval draws test utterances again, for the mean of the seeds."""
    mine = _of(findings, name, minutes, steps)
    counts = np.mean([found.counts for found in mine.values()], axis=0)
    totals = next(iter(mine.values())).totals
    seeds = {seed: found.rate for seed, found in mine.items()}
    return Summary(float(counts.sum() / sum(totals)), ratio_interval(counts, totals), seeds)


def compare(
    findings: Sequence[Finding],
    name: str,
    baseline: str,
    minutes: float | None = None,
    steps: int | None = None,
) -> Comparison:
    """Is trial ``name`` better than ``baseline`` (on as many labelled minutes, after as many steps)? Paired over seeds
    and utterances.

    Raises :class:`ConfigError` when one of them is missing, they share no seed, or were tested on other utterances.
    """
    ours, theirs = (_of(findings, one, minutes, steps) for one in (name, baseline))
    return _compare(_counts(ours), _counts(theirs), [*ours.values(), *theirs.values()])


def progress(
    findings: Sequence[Finding], name: str, steps: int, more: int, minutes: float | None = None
) -> Comparison:
    """Is a trial better after ``more`` steps than after ``steps``? Then it was still improving there."""
    longer, shorter = (_of(findings, name, minutes, length) for length in (more, steps))
    return _compare(_counts(longer), _counts(shorter), [*longer.values(), *shorter.values()])


def by_steps(
    findings: Sequence[Finding], name: str, baseline: str, minutes: float | None = None
) -> dict[int, Comparison]:
    """{steps: comparison of two trials after so many}, of trials that were trained for several numbers of steps (on as
    many labelled ``minutes``).

    A comparison is ``unsettled`` by those of the two that were still improving then: that are better after the next
    larger number of steps, or at the end were better than after the last but one.
    """
    findings = [found for found in findings if minutes in (None, found.minutes)]
    lengths, by = steps_in(findings, name, baseline), {}
    for i, steps in enumerate(lengths):
        pair = lengths[i : i + 2] if i + 1 < len(lengths) else lengths[-2:]
        told = {one: progress(findings, one, *pair, minutes) for one in (name, baseline) if len(pair) == 2}
        unsettled = tuple(one for one, change in told.items() if change.verdict == "better")
        by[steps] = replace(compare(findings, name, baseline, minutes, steps), unsettled=unsettled)
    return by


def interaction(findings: Sequence[Finding], name: str, baseline: str, few: float, many: float) -> Comparison:
    """The difference between two trials on ``few`` labelled minutes minus that on ``many``: "better" when ``name``
    helps more where labels are few.
    """
    runs = {
        (way, minutes): _of(findings, way, minutes) for minutes in (few, many) for way in (name, baseline)
    }
    every = [found for own in runs.values() for found in own.values()]
    _check_test_set(every)
    change = {}
    for minutes in (few, many):
        ours, theirs = runs[name, minutes], runs[baseline, minutes]
        both = ours.keys() & theirs.keys()
        change[minutes] = {seed: np.subtract(ours[seed].counts, theirs[seed].counts) for seed in sorted(both)}
    return _compare(change[few], change[many], every)


def _compare(ours: dict, theirs: dict, findings: Sequence[Finding]) -> Comparison:
    _check_test_set(findings)
    first = findings[0]
    return compare_counts(ours, theirs, first.totals, first.measure, less_is_better=first.measure != PHONES)


def _check_test_set(findings: Sequence[Finding]) -> None:
    if len({found.totals for found in findings}) > 1:
        raise ConfigError(
            "these trainings were tested on different utterances: were some test files not there, or not readable?"
        )


def _counts(found: dict[int, Finding]) -> dict[int, tuple[int, ...]]:
    return {seed: one.counts for seed, one in found.items()}


def _of(
    findings: Iterable[Finding], name: str, minutes: float | None, steps: int | None = None
) -> dict[int, Finding]:
    """{seed: finding} of a trial."""
    mine = [
        f for f in findings if f.name == name and minutes in (None, f.minutes) and steps in (None, f.steps)
    ]
    there = sorted({f.name if minutes is None else f"{f.name} on {f.minutes:g} min" for f in findings})
    if not mine:
        on = "" if minutes is None else f" on {minutes:g} labelled minutes"
        on += "" if steps is None else f" after {steps:,} steps"
        raise ConfigError(f"no findings of {name!r}{on}; there are {', '.join(there)}")
    if len({f.minutes for f in mine}) > 1:
        raise ConfigError(f"{name!r} was trained on several label budgets: say on how many minutes")
    if len({f.steps for f in mine}) > 1:
        raise ConfigError(f"{name!r} was trained for several numbers of steps: say after how many")
    return {found.seed: found for found in mine}


def names_in(findings: Iterable[Finding]) -> list[str]:
    """Names of the trials, in the order in which they first appear."""
    return list(dict.fromkeys(found.name for found in findings))


def budgets_in(findings: Sequence[Finding], *names: str) -> list[float]:
    """Label budgets, in minutes, that all of these trials were trained on (without names: that any was)."""
    found = [{f.minutes for f in findings if f.name == name} for name in names]
    return sorted(set.intersection(*(found or [{f.minutes for f in findings}])))


def steps_in(findings: Sequence[Finding], *names: str) -> list[int]:
    """Numbers of steps that all of these trials were trained for (without names: that any was)."""
    found = [{f.steps for f in findings if f.name == name} for name in names]
    return sorted(set.intersection(*(found or [{f.steps for f in findings}])))


def overview(findings: Sequence[Finding]) -> str:
    """A line of plain text for every trial, budget and length: WER in per cent, its 95 % interval, and each seed's."""
    lines = []
    for name, minutes, steps in dict.fromkeys((f.name, f.minutes, f.steps) for f in findings):
        found = summary(findings, name, minutes, steps)
        lines.append(
            f"{name:26s} {minutes:4g} min, {steps:6,} steps: WER {found}; each seed {found.each_seed}"
        )
    return "\n".join(lines)


def study_trials(findings: Sequence[Finding]) -> list[tuple[str, int, Comparison | None]]:
    """(trial, steps, its comparison with the first trial after as many, None for the first) of a study, short trainings
    first."""
    first, found = findings[0].name, []
    for steps in steps_in(findings):
        names = names_in(f for f in findings if f.steps == steps)
        for name in names:
            change = compare(findings, name, first, steps=steps) if name != first and first in names else None
            found.append((name, steps, change))
    return found


def changes_over_steps(findings: Sequence[Finding]) -> dict[str, dict[int, Comparison]]:
    """{trial: {steps: its comparison with the first trial after as many}} of a study, all trials but the first."""
    found: dict[str, dict[int, Comparison]] = {}
    for name, steps, change in study_trials(findings) if findings else ():
        if change:
            found.setdefault(name, {})[steps] = change
    return found


def study_rows(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Rows of a table: the measure of every trial over its seeds, and its comparison with the first trial."""
    rows = []
    for name, steps, change in study_trials(findings):
        row = {"trial": name, "steps": f"{steps:,}"}
        row |= {findings[0].measure: str(summary(findings, name, steps=steps))}
        row |= {"difference, points": "", "each seed": "", "verdict": ""}
        if change:
            row |= {"difference, points": change.points, "each seed": change.each_seed}
            row["verdict"] = change.verdict
        rows.append(row)
    return rows
