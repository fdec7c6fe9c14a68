"""The low-resource question: how low do few minutes of labels bring the WER, from different starts, with several seeds?

    ways = {"scratch": lambda speech, seed: new_student("tiny-sw-fbank", seed=seed), "distilled": ...}
    findings = run_low_resource(ways, budgets_of(speech, [1, 10]), test, recipe, seeds=(0, 1), out=folder)
    print(gain(findings, "distilled", "scratch", 10))
    print(interaction(findings, "both", "distilled", few=1, many=10))      # does a loss help more when labels are few?

Every fine-tuning is kept in the folder as it ends, so a run that was stopped goes on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from kdkit.common.errors import ConfigError
from kdkit.common.files import write_text
from kdkit.common.parallel import each_training
from kdkit.common.statistics import ratio_interval, verdict
from kdkit.model.speech_model import SpeechModel
from kdkit.recognition.evaluate import evaluate
from kdkit.recognition.finetune import FineTuneConfig, fine_tune
from kdkit.speech.manifest import Utterance, speech_identity
from kdkit.training import identity
from kdkit.training.recipe import TrainConfig

Way = Callable[[Sequence[Utterance], int], SpeechModel]  # (labelled speech, seed) -> a model to fine-tune


@dataclass(frozen=True)
class FineTuned:
    """What one fine-tuning came to: word errors and reference words of every test utterance, greedy decoding.

    ``way``: how the model began; ``minutes``: label budget; ``seed``: of the head, the masks, the order of the speech,
    and of the weights where they began as random numbers.
    """

    way: str
    minutes: float
    seed: int
    steps: int
    parameters: int
    seconds: float
    errors: tuple[int, ...]
    words: tuple[int, ...]

    @property
    def wer(self) -> float:
        return sum(self.errors) / sum(self.words)


def run_low_resource(
    ways: Mapping[str, Way],
    budgets: Mapping[float, Sequence[Utterance]],
    test: Sequence[Utterance],
    recipe: TrainConfig,
    seeds: Sequence[int],
    out: Path,
    config: FineTuneConfig | None = None,
    resume: bool = True,
    dev: Sequence[Utterance] = (),
    jobs: int | None = 1,
) -> list[FineTuned]:
    """Fine-tunes every way on every budget with every seed, at equal steps, and scores the last step on ``test``, or
    the weights that ``dev`` chooses (:func:`kdkit.recognition.finetune.fine_tune`).

    Seeds are the outer loop: a run that is stopped early has whole rounds. What is in ``out`` with the same settings is
    taken from there. ``jobs`` processes share the trainings (None: one for each core), with one thread each.
    """
    config = config or FineTuneConfig()

    def run(task: tuple[int, float, str]) -> FineTuned:
        seed, minutes, way = task
        folder = Path(out) / way.replace(" ", "-").replace("/", "-") / f"{minutes:g}min-seed{seed}"
        path, own = folder / "finding.json", replace(recipe, seed=seed)
        asked = own.result() | {"config": asdict(config)}
        for name, some in (("train", budgets[minutes]), ("dev", dev), ("test", test)):
            asked[name] = speech_identity(some, times=False)
        if resume and (found := identity.kept(path, asked)):
            return FineTuned(**found)
        title, speech = f"{way}, {minutes:g} min, seed {seed}", budgets[minutes]
        student = ways[way](speech, seed).requires_grad_(True)
        recogniser, facts = fine_tune(student, speech, own, folder, dev, config, resume, title)
        result = evaluate(recogniser, list(test)).score
        errors, words = tuple(result.word_errors), tuple(result.word_counts)
        made = (facts["steps"], facts["parameters"], facts["seconds"])
        found = FineTuned(way, minutes, seed, *made, errors, words)
        write_text(path, json.dumps(asdict(found) | {"asked": asked}) + "\n")
        for weights in ("checkpoints", "candidates"):  # what counts is kept
            shutil.rmtree(folder / weights, ignore_errors=True)
        return found

    tasks = [(seed, minutes, way) for seed in seeds for minutes in budgets for way in ways]
    return each_training(run, tasks, jobs, Path(out).name)


def kept_findings(out: Path) -> list[FineTuned]:
    """All that :func:`run_low_resource` has kept in ``out``, in whichever process, by way, minutes and seed."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in Path(out).glob("*/*/finding.json")]
    findings = [FineTuned(**{name: row[name] for name in row if name != "asked"}) for row in rows]
    return sorted(findings, key=lambda found: (found.way, found.minutes, found.seed))


def load_findings(path: Path) -> list[FineTuned]:
    """What :func:`save_findings` wrote."""
    kept = json.loads(Path(path).read_text(encoding="utf-8"))
    return [FineTuned(**finding, words=kept["words"]) for finding in kept["findings"]]


def save_findings(path: Path, findings: Sequence[FineTuned]) -> None:
    """Findings on one test set as JSON. Raises :class:`ConfigError` when they are of different ones."""
    words = {tuple(finding.words) for finding in findings}
    if len(words) != 1:
        raise ConfigError(f"{path}: findings on {len(words)} test sets do not go into one file")
    rows = [asdict(finding) for finding in findings]
    for row in rows:
        del row["words"]
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_text(path, f'{{"words": {json.dumps(words.pop())}, "findings": [\n{lines}\n]}}\n')


def budgets_in(findings: Sequence[FineTuned], *ways: str) -> list[float]:
    """Label budgets, in minutes, that all of these ways were fine-tuned on (without names: that any was)."""
    found = [{f.minutes for f in findings if f.way == way} for way in ways] or [{f.minutes for f in findings}]
    return sorted(set.intersection(*found))


def mean_wer(findings: Sequence[FineTuned], way: str, minutes: float) -> tuple[float, float, float]:
    """(WER, low, high), shares: mean over the seeds, with a 95 % interval over test utterances."""
    mine = _of(findings, way, minutes)
    errors = np.mean([finding.errors for finding in mine.values()], axis=0)
    words = next(iter(mine.values())).words
    return float(errors.sum() / sum(words)), *ratio_interval(errors, words)


def overview(findings: Sequence[FineTuned]) -> str:
    """A line of plain text for every way and budget: WER in per cent, its 95 % interval, and each seed's."""
    lines = []
    for way, minutes in dict.fromkeys((f.way, f.minutes) for f in findings):
        wer, low, high = (100 * share for share in mean_wer(findings, way, minutes))
        each = ", ".join(f"{100 * f.wer:.1f}" for f in _of(findings, way, minutes).values())
        lines.append(
            f"{way:26s} {minutes:4g} min  WER {wer:.1f} % ({low:.1f} to {high:.1f}; each seed {each})"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Gain:
    """Word errors saved, as a share of the words: above 0 the first of two systems errs less. 95 % interval over
    utterances of the mean over seeds. ``verdict``: :func:`kdkit.common.statistics.verdict`, whose "worse" is "not
    better" here.
    """

    value: float
    interval: tuple[float, float]
    seeds: dict[int, float]

    @property
    def verdict(self) -> str:
        return verdict(self.interval, self.seeds.values()).replace("worse", "not better")

    def __str__(self) -> str:
        low, high = (100 * end for end in self.interval)
        each = ", ".join(f"{100 * value:+.1f}" for value in self.seeds.values())
        seeds = f"; each seed {each}" if len(self.seeds) > 1 else "; one seed"
        return f"{100 * self.value:+.1f} points ({low:+.1f} to {high:+.1f}{seeds})"


def gain(findings: Sequence[FineTuned], way: str, baseline: str, minutes: float) -> Gain:
    """What ``way`` saves against ``baseline`` on the same labels, paired over utterances and seeds."""
    return _gain(findings, [(1, way, minutes), (-1, baseline, minutes)])


def interaction(findings: Sequence[FineTuned], way: str, baseline: str, few: float, many: float) -> Gain:
    """The gain with few minutes of labels minus that with many: above 0, ``way`` helps more when labels are few."""
    return _gain(findings, [(1, way, few), (-1, baseline, few), (-1, way, many), (1, baseline, many)])


def _gain(findings: Sequence[FineTuned], terms: list[tuple[int, str, float]]) -> Gain:
    runs = [(sign, _of(findings, way, minutes)) for sign, way, minutes in terms]
    seeds = sorted(set.intersection(*(set(found) for _, found in runs)))
    if not seeds:
        named = ", ".join(f"{way} on {minutes:g} min" for _, way, minutes in terms)
        raise ConfigError(f"no seed in common: {named}")
    words = tuple(runs[0][1][seeds[0]].words)
    if any(tuple(found[seed].words) != words for _, found in runs for seed in seeds):
        raise ConfigError(
            "these fine-tunings were scored on different utterances: were some test files not there, or not readable?"
        )
    each = {seed: -sum(sign * np.array(found[seed].errors) for sign, found in runs) for seed in seeds}
    mean, total = np.mean(list(each.values()), axis=0), sum(words)
    by_seed = {seed: float(saved.sum() / total) for seed, saved in each.items()}
    return Gain(float(mean.sum() / total), ratio_interval(mean, words), by_seed)


def _of(findings: Sequence[FineTuned], way: str, minutes: float) -> dict[int, FineTuned]:
    mine = {f.seed: f for f in findings if f.way == way and f.minutes == minutes}
    if not mine:
        there = sorted({f"{f.way} on {f.minutes:g} min" for f in findings})
        raise ConfigError(f"nothing of {way!r} on {minutes:g} labelled minutes; there is {', '.join(there)}")
    return mine
