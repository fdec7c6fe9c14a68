"""``kdkit finetune``: from a student, or any other model, to a recogniser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.commands import app, say_skipped, speech_of
from kdkit.commands.options import BatchSeconds, Data, Out, RunOptions, SpecAugment, Warp

if TYPE_CHECKING:
    from kdkit.recognition.finetune import FineTuneConfig


@dataclass
class SpeechOptions:
    """Labelled speech: to train on, to choose weights on, to measure the result on."""

    data: Data = None
    minutes: Annotated[
        list[float] | None,
        typer.Option(
            min=0,
            help="Label budget, the first so many minutes; repeat to compare. Default: 10, or all of --data.",
        ),
    ] = None
    dev: Annotated[
        Path | None,
        typer.Option(
            help="Manifest that decides which weights are used; default: none for --data, else synthetic."
        ),
    ] = None
    test: Annotated[
        list[str] | None,
        typer.Option(
            help="Manifest, or split of the synthetic speech, to measure the result on; repeat for more."
        ),
    ] = None
    allow_speaker_overlap: Annotated[
        bool, typer.Option("--allow-speaker-overlap", help="Accept test voices that are heard in training.")
    ] = False

    def load(self) -> tuple[dict[float, list], list, dict[str, list], list[str]]:
        """Training speech by label budget in minutes, dev speech, test sets by name, and notes on their speakers."""
        from kdkit.recognition.finetune import budgets_of
        from kdkit.speech.corpora.summary import check_speakers
        from kdkit.speech.manifest import distinct_names, is_manifest

        minutes = self.minutes or ([10.0] if self.data is None else [])
        speech = speech_of(self.data, "train", max(minutes, default=None), 10)
        budgets = budgets_of(speech, minutes or [sum(u.duration for u in speech) / 60])
        dev = speech_of(self.dev, "dev", None if self.dev else 2, 2) if self.dev or self.data is None else []
        wanted = self.test or []
        if self.test is None and self.data is None and len(budgets) > 1:
            wanted = ["test-clean"]
        tests = {
            name: speech_of(Path(given) if is_manifest(given) else None, given, None, 10)
            for name, given in zip(distinct_names(wanted), wanted, strict=True)
        }
        named = {"train": speech, "dev": dev} | {f"test {name}": some for name, some in tests.items()}
        heard = {name: some for name, some in named.items() if some}
        return budgets, dev, tests, check_speakers(heard, self.allow_speaker_overlap)


@dataclass
class LearningOptions:
    """What learns when, and which weights are used in the end."""

    freeze: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the steps in which only the CTC head learns.")
    ] = 0.0
    front_end_rate: Annotated[
        float,
        typer.Option(min=0, help="Learning rate of the front-end, as a share of the others'; 0: fixed."),
    ] = 1.0
    patience: Annotated[
        int,
        typer.Option(min=0, help="Stop after so many evaluations on dev without a better one; 0: never."),
    ] = 0
    average: Annotated[
        int, typer.Option(min=1, help="Also try the mean of the weights of so many last evaluations.")
    ] = 1
    evaluate_every: Annotated[
        int, typer.Option(min=0, help="Steps between evaluations on dev; 0: a tenth.")
    ] = 0


@dataclass
class AugmentationOptions:
    """How training speech is changed."""

    mask_time: Annotated[float, typer.Option(min=0, max=1, help="Share of frames masked in training.")] = 0.2
    mask_channel: Annotated[float, typer.Option(min=0, max=1, help="Share of channels masked.")] = 0.1
    augmenting: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Random equalisers and noise in training.")
    ] = True
    spec_augment: SpecAugment = False
    warp: Warp = 0
    speed: Annotated[
        list[float] | None,
        typer.Option(help="Speed perturbation: a factor to draw from; repeat, for instance 0.9, 1 and 1.1."),
    ] = None
    gain: Annotated[
        float,
        typer.Option(
            min=0, max=100, help="Random gains up to so many dB, up or down: for recordings of other levels."
        ),
    ] = 0.0


@dataclass
class FineTuneRunOptions(RunOptions):
    """How the fine-tuning runs."""

    batch_seconds: BatchSeconds = 16


@app.command(
    epilog="Examples: kdkit finetune tiny-sw-fbank --minutes 10 --out runs/recogniser\n\n"
    "kdkit finetune runs/student/student.safetensors --minutes 1 --minutes 10 --minutes 30 --out runs/budgets\n\n"
    "kdkit finetune tiny-sw-fbank --data data/train.jsonl --dev data/dev.jsonl --test data/test.jsonl --out runs/mine"
)
def finetune(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="A checkpoint of 'kdkit distill', a shipped student's name, any teacher, or a recogniser."
        ),
    ],
    out: Out,
    *,
    speech: SpeechOptions,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Start from random weights, for comparison.")
    ] = False,
    new_head: Annotated[
        bool,
        typer.Option(
            "--new-head", help="A new CTC head, for kdkit's letters or --alphabet, though MODEL has one."
        ),
    ] = False,
    alphabet: Annotated[
        str, typer.Option(help="Letters of a new CTC head, such as abcdefghijklmnopqrstuvwxyzäöüß.")
    ] = "",
    learning: LearningOptions,
    augmentation: AugmentationOptions,
    run: FineTuneRunOptions,
) -> None:
    """Fine-tune a model on labelled speech with CTC.

    A recogniser (kdkit's, a CTC model of transformers, an ASR bundle of torchaudio) keeps its head and its vocabulary;
    other models get a new head, for a to z and the apostrophe or for --alphabet. The weights with the lowest word error
    rate on dev are kept. Several --minutes give a table, and OUT/results.json. Stopped with Ctrl-C or SIGTERM, or
    killed, the same command goes on where it was.
    """
    from kdkit.common.errors import ConfigError
    from kdkit.recognition.ctc import CTCModel
    from kdkit.recognition.finetune import (
        augmented_fbank,
        budget_table,
        fine_tune_budgets,
        from_scratch,
        head_of,
    )
    from kdkit.recognition.loading import load_start
    from kdkit.speech import text
    from kdkit.teachers import origin
    from kdkit.training.processes import held, processes

    letters = text.alphabet(alphabet) if alphabet else text.VOCABULARY

    def start(some: list):
        network = load_start(model, new_head or scratch)
        if alphabet and isinstance(network, CTCModel):
            raise ConfigError(
                f"{model} has a head of its own, so --alphabet would change nothing: add --new-head"
            )
        network = from_scratch(network, some, run.seed) if scratch else network
        if processes().is_main_process and some is next(iter(budgets.values())):
            print(f"CTC head: {head_of(network, model, letters)}")
        return augmented_fbank(network, augmentation.spec_augment, augmentation.warp)

    budgets, dev, tests, notes = speech.load()
    recipe = run.recipe(schedule="tri-stage", warmup=0.1, evaluate_every=learning.evaluate_every)
    config = fine_tune_config(learning, augmentation, run.batch_seconds)
    meta = {"from": origin(model), "start": "scratch" if scratch else "given"}
    context.with_resource(held(out))
    rows = fine_tune_budgets(start, budgets, recipe, out, dev, tests, config, meta, not run.fresh, letters)
    if processes().is_main_process:
        for note in notes if speech.data else []:
            print(f"note: {note}")
        print(budget_table(rows))
        for row in rows:
            say_skipped(row["skipped"], "of the training speech")
            for name, result in row["tests"].items():
                say_skipped([(skipped,) for skipped in result.get("skipped", ())], f"of {name}")
            print(f"recogniser: {row['recogniser']}")


def fine_tune_config(
    learning: LearningOptions, augmentation: AugmentationOptions, batch_seconds: float
) -> FineTuneConfig:
    from kdkit.recognition.ctc import MaskConfig
    from kdkit.recognition.finetune import FineTuneConfig
    from kdkit.speech.augment import AUGMENTED, UNCHANGED

    augmenting = AUGMENTED if augmentation.augmenting else None
    if gain := augmentation.gain:
        augmenting = replace(augmenting or UNCHANGED, gain=(-gain, gain))
    return FineTuneConfig(
        batch_seconds=batch_seconds,
        mask=MaskConfig(time=augmentation.mask_time, channel=augmentation.mask_channel),
        augmenting=augmenting,
        speeds=tuple(augmentation.speed or ()),
        freeze=learning.freeze,
        front_end_rate=learning.front_end_rate,
        patience=learning.patience,
        average=learning.average,
    )
