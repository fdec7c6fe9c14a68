"""Fine-tuning with CTC: on one set of labelled speech, with model selection on dev, and on several label budgets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from kdkit.common.errors import ConfigError, TextError
from kdkit.common.files import write_text
from kdkit.common.wording import between
from kdkit.fbank import fit_statistics
from kdkit.model.speech_model import SpeechModel, parameter_count
from kdkit.recognition.ctc import CTCModel, CTCTask, MaskConfig, save_recogniser, trainable
from kdkit.recognition.evaluate import evaluate, labelled
from kdkit.recognition.network import window_for
from kdkit.speech.augment import AUGMENTED, AugmentConfig
from kdkit.speech.batches import Batches
from kdkit.speech.manifest import Utterance, speech_identity, subset
from kdkit.speech.text import VOCABULARY, Vocabulary
from kdkit.students import new_student
from kdkit.training import identity
from kdkit.training.loop import train
from kdkit.training.processes import held, processes
from kdkit.training.recipe import TrainConfig
from kdkit.training.selection import Selection

EVALUATIONS = 10  # on dev in a run, if the recipe has no evaluate_every


@dataclass(frozen=True)
class FineTuneConfig:
    """Settings of fine-tuning besides the recipe of the training loop.

    ``front_end_rate``: Adam's updates are about equally large for all weights. The weights of an Fbank front-end are
    small, because its inputs are many and correlated, so a few voices soon overwrite what distillation learnt; a small
    share prevents that.

    ``patience`` saves time, but does not reduce errors: a run that it stops has missed the decay of the learning rate,
    in which error rates usually fall most. The best weights are kept with and without it.
    """

    batch_seconds: float = 16.0
    mask: MaskConfig | None = field(default_factory=MaskConfig)
    augmenting: AugmentConfig | None = AUGMENTED
    speeds: tuple[float, ...] = ()  # speed perturbation: factors to draw from
    freeze: float = 0.0  # share of the steps in which only the head learns
    front_end_rate: float = 1.0  # share of the learning rate that the front-end has; 0: it stays as it is
    patience: int = 0  # evaluations on dev without a new best after which the run ends; 0: never
    average: int = 1  # evaluations whose weights are averaged, if dev prefers that to the best one


def fine_tune(
    model: SpeechModel | CTCModel,
    speech: Sequence[Utterance],
    recipe: TrainConfig,
    out: Path,
    dev: Sequence[Utterance] = (),
    config: FineTuneConfig = FineTuneConfig(),
    resume: bool = True,
    title: str = "fine-tuning",
    vocabulary: Vocabulary = VOCABULARY,
) -> tuple[CTCModel, dict]:
    """Trains ``model`` with a CTC head; returns the recogniser, in eval mode, and facts about the run.

    A model gets a new head for ``vocabulary``, which goes into its file (:func:`kdkit.speech.text.alphabet` makes that
    of another language); a recogniser keeps its head and vocabulary.

    With ``dev`` speech the word error rate on it is measured ten times in the run (or every ``evaluate_every`` steps),
    and the weights with the lowest one are returned; without it, those of the last step. The run is kept in ``out`` and
    resumes exactly, as with :func:`kdkit.training.loop.train`.

    Raises ConfigError for early stopping or averaging without dev, TrainingError as ``train`` and ``trainable`` do.
    """
    if not dev and (config.patience or config.average > 1):
        raise ConfigError(
            "early stopping and averaging are decided on dev speech: give some, or leave both off"
        )
    with held(out):
        return _fine_tune(model, speech, recipe, Path(out), dev, config, resume, title, vocabulary)


def _fine_tune(
    model: SpeechModel | CTCModel,
    speech: Sequence[Utterance],
    recipe: TrainConfig,
    out: Path,
    dev: Sequence[Utterance],
    config: FineTuneConfig,
    resume: bool,
    title: str,
    vocabulary: Vocabulary,
) -> tuple[CTCModel, dict]:
    """:func:`fine_tune`, with ``out`` locked."""
    torch.manual_seed(recipe.seed)  # of a new head
    recogniser = model if isinstance(model, CTCModel) else CTCModel(model, vocabulary)
    speech = trainable(list(speech), recogniser.vocabulary)
    dev = labelled(dev, "dev", recogniser.vocabulary)
    recogniser.window = window_for(speech)
    if config.front_end_rate == 0:
        recogniser.model.front_end.requires_grad_(False)
    task = CTCTask(
        recogniser, config.mask, config.augmenting, config.freeze, config.speeds, config.front_end_rate
    )
    if recogniser is model:
        task.drawn = ()  # its head is not a new one
    selection = None
    if dev:
        selection = Selection(
            out / "candidates",
            patience=config.patience,
            last=config.average,
            not_before=round(config.freeze * recipe.steps),
        )
        recipe = replace(recipe, evaluate_every=recipe.evaluate_every or max(1, recipe.steps // EVALUATIONS))
    batches, began = Batches(speech, config.batch_seconds, recipe.seed), time.perf_counter()

    def on_dev(task: CTCTask) -> dict[str, float]:
        return dev_scores(task.recogniser, dev)

    try:
        decides = {"dev": speech_identity(dev)} if dev else None
        log = train(
            task,
            batches,
            recipe,
            out,
            on_dev if dev else None,
            resume,
            title,
            selection,
            decides=decides,
        )
    finally:
        batches.close()
    choice = selection.choose(task, log, on_dev) if selection else {"chosen": "last step"}
    identity.left_with(out, task)  # the chosen weights
    facts = {
        "minutes": sum(u.duration for u in speech) / 60,
        "utterances": len(speech),
        "parameters": parameter_count(recogniser.model),
        "head": "kept" if recogniser is model else "new",
        "steps": log[-1]["step"],
        "seed": recipe.seed,
        "lr": recipe.lr,
        "freeze": config.freeze,
        "front_end_rate": config.front_end_rate,
        "seconds": round(time.perf_counter() - began, 1),  # of this call: less for a run that went on
        "loss": next((row["loss"] for row in reversed(log) if "loss" in row), None),  # per character
        "skipped": batches.skipped,  # (id, reason) of files that could not be read
    }
    return recogniser, facts | choice


def dev_scores(recogniser: CTCModel, dev: Sequence[Utterance]) -> dict[str, float]:
    """Error rates (shares) of greedy decoding on dev speech, and the share of transcripts that are empty."""
    result = evaluate(recogniser, list(dev)).score
    empty = sum(not text for text in result.hypotheses) / result.utterances
    return {"dev_wer": result.wer, "dev_cer": result.cer, "dev_empty": empty}


def from_scratch(model: SpeechModel, speech: Sequence[Utterance], seed: int = 0) -> SpeechModel:
    """A model of the same structure with random weights; an Fbank front-end gets the statistics of ``speech``."""
    fresh = new_student(model.config, seed=seed)
    fit_statistics(fresh, speech)
    return fresh


def head_of(model: SpeechModel | CTCModel, source: str, vocabulary: Vocabulary = VOCABULARY) -> str:
    """The CTC head that fine-tuning trains and its symbols, as text; ``source``: the model's name, ``vocabulary``: of a
    new head.
    """
    if isinstance(model, CTCModel):
        return f"that of {source}, {len(model.vocabulary)} symbols: {model.vocabulary.known()}"
    return f"new, {len(vocabulary)} symbols: {vocabulary.known()}"


def augmented_fbank(
    model: SpeechModel | CTCModel, spec_augment: bool = False, warp: float = 0.0
) -> SpeechModel | CTCModel:
    """A model with the same weights and, in training, SpecAugment on its Fbank, frequencies warped by up to a share of
    ``warp``, or both; with neither, the model itself. Raises ConfigError for a waveform front-end.
    """
    if not (spec_augment or warp):
        return model
    if isinstance(model, CTCModel):
        model.model = augmented_fbank(model.model, spec_augment, warp)
        return model
    if model.config.front_end != "fbank":
        raise ConfigError(
            "SpecAugment and warped vocal tracts change Fbank features: a model with a waveform CNN has none, leave "
            "them out"
        )
    settings = model.config
    changed = SpeechModel(
        replace(
            settings,
            spec_augment=spec_augment or settings.spec_augment,
            fbank_warp=warp or settings.fbank_warp,
        )
    )
    changed.load_state_dict(model.state_dict())
    return changed


def budgets_of(speech: Sequence[Utterance], minutes: Sequence[float]) -> dict[float, list[Utterance]]:
    """Nested label budgets {minutes: utterances}: each the first minutes of the speech, so that 1 minute is part of 10.

    Raises ConfigError for a budget of 0 or less, or longer than the speech.
    """
    total = sum(u.duration for u in speech) / 60
    for budget in minutes:
        if not 0 < budget <= total + 1e-6:
            raise ConfigError(f"{budget:g} labelled minutes are wanted, but there are {total:.1f}")
    return {budget: subset(list(speech), budget) for budget in sorted(set(minutes))}


def fine_tune_budgets(
    model: Callable[[Sequence[Utterance]], SpeechModel | CTCModel],
    budgets: Mapping[float, Sequence[Utterance]],
    recipe: TrainConfig,
    out: Path,
    dev: Sequence[Utterance] = (),
    tests: Mapping[str, Sequence[Utterance]] | None = None,
    config: FineTuneConfig = FineTuneConfig(),
    meta: dict | None = None,
    resume: bool = True,
    vocabulary: Vocabulary = VOCABULARY,
) -> list[dict]:
    """Fine-tunes a recogniser for every label budget, each from its own ``model(speech of the budget)``.

    Writes OUT/<budget>min/recogniser.safetensors (OUT/recogniser.safetensors if there is one budget only) and, after
    each budget, OUT/results.json: facts of the run and scores on every test set. Returns the rows of that file. Raises
    TextError for a test set without texts before anything is trained, and what :func:`fine_tune` raises.
    """
    for name, utterances in (tests or {}).items():
        if not any(utterance.text for utterance in utterances):
            raise TextError(
                f"{name}: not one of {len(utterances)} utterances has a text, so there is no error rate"
            )
    rows = []
    for minutes, speech in budgets.items():
        folder = Path(out) / f"{minutes:g}min" if len(budgets) > 1 else Path(out)
        path = folder / "recogniser.safetensors"
        title = f"{round(minutes, 1):g} labelled min"
        if not resume and processes().is_main_process:
            path.unlink(missing_ok=True)
        recogniser, facts = fine_tune(
            model(speech), speech, recipe, folder, dev, config, resume, title, vocabulary
        )
        row = (meta or {}) | {"budget": minutes} | facts | {"tests": test_scores(recogniser, tests or {})}
        rows.append(row | {"recogniser": str(path)})
        if processes().is_main_process:
            lasting = {name: value for name, value in row.items() if name not in ("seconds", "skipped")}
            save_recogniser(path, recogniser, lasting | {"skipped": [name for name, _ in row["skipped"]]})
            write_text(Path(out) / "results.json", json.dumps(rows, indent=1) + "\n")
    return rows


def test_scores(recogniser: CTCModel, tests: Mapping[str, Sequence[Utterance]]) -> dict[str, dict]:
    """:meth:`Score.to_dict` of greedy decoding on each test set, with "skipped": ids of unreadable utterances."""
    results = {}
    for name, utterances in tests.items():
        found = evaluate(recogniser, utterances, name=name)
        results[name] = found.score.to_dict()
        if found.skipped:
            results[name]["skipped"] = [skipped for skipped, _ in found.skipped]
    return results


def budget_table(rows: Sequence[dict]) -> str:
    """The rows of :func:`fine_tune_budgets` as a plain-text table: rates in per cent, 95 % intervals in brackets."""
    tests = list(rows[0]["tests"])
    lines = [["minutes", "utterances", "steps", "used", "dev WER", *(f"{name} WER" for name in tests)]]
    for row in rows:
        dev = f"{100 * row['dev_wer']:.1f}" if "dev_wer" in row else "-"
        cells = [f"{row['minutes']:.1f}", str(row["utterances"]), str(row["steps"]), row["chosen"], dev]
        for name in tests:
            result = row["tests"][name]
            cells.append(f"{100 * result['wer']:.1f}{between(result['wer_interval'], 'share')}")
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines)
