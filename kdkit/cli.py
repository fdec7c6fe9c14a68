"""The command line: ``kdkit report``, and a thin command for each step of the way.

Commands only collect what a function of the package needs and print what it found; torch is imported inside them, so
that ``kdkit --help`` answers at once. What kdkit can explain ends in one line, ``error: ...``, and exit status 2.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kdkit.errors import ConfigError, KdkitError
from kdkit.profiles import PROFILES, get_profile

app = typer.Typer(
    help="From a large self-supervised speech model to a small, fast recogniser. Start with: kdkit report",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

bench = typer.Typer(
    help="Measure speed, as ratios from one run.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(bench, name="bench")

Out = Annotated[Path, typer.Option(help="Folder for what is made.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]
Steps = Annotated[int, typer.Option(min=1, help="Optimiser steps.")]
Rate = Annotated[float, typer.Option("--lr", min=0, help="Highest learning rate.")]
BatchSeconds = Annotated[float, typer.Option(min=1, help="Seconds of speech in a batch, padding included.")]
Data = Annotated[
    Path | None, typer.Option(help="Manifest (JSON lines) of your own speech; default: synthetic speech.")
]
Accumulate = Annotated[int, typer.Option(min=1, help="Batches for one step, in every process.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16 (GPU).")]
Board = Annotated[
    bool, typer.Option("--tensorboard", help="Also write TensorBoard curves to OUT/tensorboard.")
]
Minutes = Annotated[float | None, typer.Option(min=0, help="Use the first so many minutes.")]


@app.command(epilog="Example: kdkit report --profile quick --out runs/quick")
def report(
    profile: Annotated[str, typer.Option(help=f"How big a run: {', '.join(PROFILES)}.")] = "quick",
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/PROFILE. An earlier report is replaced.")
    ] = None,
    seed: Seed = 0,
    notebooks: Annotated[
        Path | None, typer.Option(help="Folder of the notebooks; default: the kit's.")
    ] = None,
) -> None:
    """Run the notebooks in order and make one HTML report."""
    get_profile(profile)  # before the imports that take a second
    from kdkit.report import run_report

    out = out or Path("runs", profile)
    status = run_report(profile, out, seed, notebooks=notebooks)
    print(f"report: {out.absolute() / 'index.html'}")
    raise typer.Exit(status)


@app.command(epilog="Example: kdkit corpus --minutes train=10 --minutes test-clean=5")
def corpus(
    minutes: Annotated[
        list[str] | None, typer.Option(metavar="SPLIT=MINUTES", help="Split and its length; repeat for more.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Where corpora are kept; default: the cache, $KDKIT_CACHE.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Make synthetic speech with exact phone times.

    All splits at their usual length, unless some are named.
    """
    from kdkit.corpora.synthetic import build_synthetic

    splits = build_synthetic(root, split_minutes(minutes) if minutes else None, seed)
    for split, utterances in splits.items():
        hours = sum(u.duration for u in utterances) / 3600
        speakers = len({u.speaker for u in utterances})
        print(f"{split}: {len(utterances)} utterances, {60 * hours:.1f} minutes, {speakers} speakers")


@app.command(epilog="Example: kdkit probe tiny --minutes 6")
def probe(
    model: Annotated[
        str, typer.Argument(help="'tiny', a shipped student's name or a checkpoint of a model.")
    ] = "tiny",
    minutes: Annotated[float, typer.Option(min=0.1, help="Minutes of speech to train the probe on.")] = 6,
    test_minutes: Annotated[
        float, typer.Option(min=0.1, help="Minutes of unseen voices to judge it on.")
    ] = 3,
    seed: Seed = 0,
) -> None:
    """Ask every layer which phone it hears.

    A linear probe for each layer, judged on voices that neither it nor the model ever heard.
    """
    from kdkit.corpora.synthetic import build_synthetic
    from kdkit.probing import phone_probe
    from kdkit.students import load_student
    from kdkit.teachers import load_teacher

    network = load_teacher().model if model == "tiny" else load_student(model)[0]
    splits = build_synthetic(minutes={"train": minutes, "test-clean": test_minutes})
    print(phone_probe(network, splits["train"], splits["test-clean"], seed=seed))


@app.command(
    epilog="Examples: kdkit distill tiny-dt-fbank --steps 2000 --minutes 600 --out runs/student\n\n"
    "kdkit distill tiny-sw-fbank --discriminative 0.4 --variant codebook --cache --out runs/both\n\n"
    "accelerate launch --num_processes 4 -m kdkit distill dt-fbank --teacher hubert.safetensors --data train.jsonl "
    "--out runs/base"
)
def distill(
    student: Annotated[str, typer.Argument(help="Structure of the student: a preset of 'kdkit models'.")],
    out: Out,
    teacher: Annotated[str, typer.Option(help="'tiny' or a checkpoint of a teacher.")] = "tiny",
    labeller: Annotated[
        str | None, typer.Option(help="A second teacher, whose cluster ids the discriminative loss follows.")
    ] = None,
    data: Data = None,
    minutes: Minutes = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="Student:teacher layers, like 6:6,12:12; default: layer-wise, or prediction heads."
        ),
    ] = None,
    regression: Annotated[float, typer.Option(min=0, help="Weight of the regression loss.")] = 1.0,
    discriminative: Annotated[
        float,
        typer.Option(min=0, help="Weight (lambda) of the discriminative loss; the paper tried 0.2 to 1."),
    ] = 0.0,
    variant: Annotated[str, typer.Option(help="Discriminative loss: codebook, linear or hard.")] = "codebook",
    tau: Annotated[float | None, typer.Option(help="Teacher's temperature; default: its codebook's.")] = None,
    tau_student: Annotated[
        float | None, typer.Option(help="Student's temperature; default: the teacher's.")
    ] = None,
    clusters: Annotated[
        int, typer.Option(min=2, help="k-means centroids that serve a teacher without a codebook.")
    ] = 500,
    inherit: Annotated[
        bool, typer.Option(help="Start from every part of the teacher that has the student's shape.")
    ] = True,
    cache: Annotated[
        bool,
        typer.Option("--cache", help="Keep the teacher's targets on disk: for several students or epochs."),
    ] = False,
    steps: Steps = 1000,
    lr: Rate = 1e-3,
    batch_seconds: BatchSeconds = 32,
    accumulate: Accumulate = 1,
    precision: Precision = "auto",
    tensorboard: Board = False,
    seed: Seed = 0,
) -> None:
    """Train a student on a teacher's hidden states and cluster ids.

    Stopped with Ctrl-C or killed, the same command goes on where it was. Several processes: accelerate launch.
    """
    from kdkit.batches import Batches
    from kdkit.distill import DistillConfig, DistillTask, default_pairs, fbank_statistics
    from kdkit.pretrain import kmeans_codebook
    from kdkit.students import new_student
    from kdkit.targets import TargetCache
    from kdkit.teachers import load_teacher, save_model
    from kdkit.training import TrainConfig, processes, train

    source, second = load_teacher(teacher), labeller and load_teacher(labeller)
    network = new_student(student, source.model if inherit else None, seed)
    speech = _speech(data, "unlabelled", minutes, 60)
    names = second or source
    if discriminative and names.codebook is None:
        print(f"{names.source} has no codebook: {clusters} k-means centroids of its last layer serve")
        names.codebook = kmeans_codebook(names.model, speech, clusters, seed=seed)
    losses = DistillConfig(
        layer_pairs(pairs) if pairs else default_pairs(network.config, source.config),
        regression_weight=regression,
        discriminative_weight=discriminative,
        variant=variant,
        tau=tau,
        tau_student=tau_student,
    )
    task = DistillTask(network, source, losses, second)
    if network.config.front_end == "fbank":
        network.front_end.set_statistics(*fbank_statistics(speech[:500]))
    targets = None
    if cache:
        targets = TargetCache(source, sorted(task.layers), speech, precision=precision)
        if processes().is_main_process:
            print(targets.announcement)
        with processes().main_process_first():  # the others find it made
            targets.build()
    batches = Batches(speech, batch_seconds, seed, targets=targets)
    recipe = TrainConfig(
        steps=steps, lr=lr, seed=seed, accumulate=accumulate, precision=precision, tensorboard=tensorboard
    )
    log = train(task, batches, recipe, out, title=f"distilling {student}")
    path = out / "student.safetensors"
    if processes().is_main_process:
        save_model(path, network, {"preset": student, **task.settings, "steps": steps, "last": log[-1]})
        _say_skipped(batches)
        print(f"student: {path}")


@app.command(
    epilog="Example: kdkit finetune runs/student/student.safetensors --minutes 10 --out runs/recogniser"
)
def finetune(
    model: Annotated[
        str, typer.Argument(help="A checkpoint of 'kdkit distill', a shipped student's name, or 'tiny'.")
    ],
    out: Out,
    data: Data = None,
    minutes: Minutes = None,
    steps: Steps = 1000,
    lr: Rate = 1e-3,
    batch_seconds: BatchSeconds = 32,
    accumulate: Accumulate = 1,
    precision: Precision = "auto",
    tensorboard: Board = False,
    seed: Seed = 0,
) -> None:
    """Fine-tune a model on labelled speech with CTC.

    Stopped with Ctrl-C or killed, the same command goes on where it was.
    """
    from kdkit.batches import Batches
    from kdkit.ctc import CTCTask, Recogniser, save_recogniser, trainable
    from kdkit.students import load_student
    from kdkit.teachers import ASSETS, load_model
    from kdkit.training import TrainConfig, processes, train

    network = (
        load_model(ASSETS / "tiny_teacher.safetensors")[0] if model == "tiny" else load_student(model)[0]
    )
    utterances = trainable(_speech(data, "train", minutes, 10))
    recogniser = Recogniser(network)
    batches = Batches(utterances, batch_seconds, seed)
    recipe = TrainConfig(
        steps=steps,
        lr=lr,
        schedule="tri-stage",
        warmup=0.1,
        seed=seed,
        accumulate=accumulate,
        precision=precision,
        tensorboard=tensorboard,
    )
    log = train(CTCTask(recogniser), batches, recipe, out, title=f"fine-tuning {model}")
    labelled = sum(u.duration for u in utterances) / 60
    path = out / "recogniser.safetensors"
    if processes().is_main_process:
        meta = {"from": model, "minutes": labelled, "steps": steps, "last": log[-1]}
        save_recogniser(path, recogniser, meta)
        _say_skipped(batches)
        print(f"recogniser: {path}")


@app.command(epilog="Example: kdkit evaluate runs/recogniser/recogniser.safetensors --split test-other")
def evaluate(
    recogniser: Annotated[
        Path, typer.Argument(help="A checkpoint of 'kdkit finetune' or one shipped with the kit.")
    ],
    data: Data = None,
    split: Annotated[str, typer.Option(help="Split of the synthetic speech.")] = "test-clean",
    minutes: Minutes = None,
    examples: Annotated[int, typer.Option(min=0, help="Transcripts to show.")] = 5,
) -> None:
    """Measure the word error rate of a recogniser.

    Greedy decoding; word and character error rate with 95 % intervals.
    """
    from kdkit.ctc import load_recogniser
    from kdkit.score import describe_collapse, score
    from kdkit.training import best_device

    network, _ = load_recogniser(recogniser)
    utterances = _speech(data, split, minutes, 10)
    texts = network.to(best_device()).transcribe(utterances)
    heard = [u for u in utterances if u.id in texts]
    for utterance in heard[:examples]:
        print(f"said:  {utterance.text}\nheard: {texts[utterance.id]}\n")
    hypotheses = [texts[u.id] for u in heard]
    print(score([u.text for u in heard], hypotheses))
    if len(heard) < len(utterances):
        print(f"{len(utterances) - len(heard)} of {len(utterances)} files could not be read")
    trouble = describe_collapse(hypotheses)
    if trouble:
        print(trouble)


@app.command(epilog="Example: kdkit structures --budget 23e6 --like dt-waveform --layers 2,4,8,12")
def structures(
    budget: Annotated[
        float | None, typer.Option(min=1, help="Propose structures of at most so many parameters.")
    ] = None,
    like: Annotated[str, typer.Option(help="Preset that gives what is not proposed.")] = "dt-waveform",
    layers: Annotated[str, typer.Option(help="Depths to propose.")] = "2,4,8,12",
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the utterance that is timed.")] = 10,
    rounds: Annotated[int, typer.Option(min=0, help="Interleaved repeats; 0: no timing.")] = 5,
) -> None:
    """Parameters, MACs and measured latency of structures.

    Those of the presets, or of proposals for a budget.
    """
    from kdkit.models import PRESETS, preset
    from kdkit.structures import cost_table, propose

    configs = PRESETS
    if budget is not None:
        configs = propose(int(budget), preset(like), [int(depth) for depth in layers.split(",")])
    for row in cost_table(configs, seconds, rounds):
        print(row)


@bench.command("distill", epilog="Example: kdkit bench distill --size tiny --size full --rounds 5")
def bench_distill_command(
    size: Annotated[list[str] | None, typer.Option(help="tiny, full; repeat for both.")] = None,
    minutes: Annotated[float, typer.Option(min=0.5, help="Minutes of speech to draw batches from.")] = 10,
    batch_seconds: BatchSeconds = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Bursts of every variant.")] = 5,
) -> None:
    """Speed of distillation: the plain way, live targets, cached targets.

    Audio-hours per hour (median and quartiles), ratio to the plain way, peak memory, and how near it comes to one large
    matrix product; one run, interleaved.
    """
    from kdkit.bench import SIZES, Row, bench_distill
    from kdkit.corpora.synthetic import build_synthetic
    from kdkit.machine import machine

    sizes = size or ["tiny"]
    for name in sizes:
        if name not in SIZES:
            raise ConfigError(f"--size {name}: choose one of {', '.join(SIZES)}")
    speech = build_synthetic(minutes={"unlabelled": minutes})["unlabelled"]
    print(", ".join(f"{key} {value}" for key, value in machine().items() if value))
    for name in sizes:
        teacher, student, _ = SIZES[name]
        print(f"\n{teacher} into {student}, both losses, batches of {batch_seconds:g} s")
        print(Row.HEAD)
        for row in bench_distill(speech, name, batch_seconds, rounds):
            print(row)


@app.command(epilog="Example: kdkit models")
def models() -> None:
    """List known structures and shipped models."""
    from kdkit.models import PRESETS, SpeechModel, parameter_count
    from kdkit.teachers import ASSETS

    print(f"{'structure':18} {'parameters':>11}  layers  width  front-end")
    for name, config in PRESETS.items():
        count = parameter_count(_shape_only(SpeechModel, config))
        print(f"{name:18} {count:11,d}  {config.layers:6}  {config.dim:5}  {config.front_end}")
    print(f"\nshipped in {ASSETS}")
    for path in sorted(ASSETS.glob("*.safetensors")):
        print(f"{path.name:34} {path.stat().st_size / 1e6:6.1f} MB")


def split_minutes(items: list[str]) -> dict[str, float]:
    """["train=10", "dev=2"] as {"train": 10.0, "dev": 2.0}; :class:`ConfigError` for anything else."""
    minutes = {}
    for item in items:
        split, _, number = item.partition("=")
        try:
            minutes[split] = float(number)
        except ValueError:
            raise ConfigError(f"--minutes {item}: write SPLIT=MINUTES, for instance train=10") from None
    return minutes


def layer_pairs(text: str) -> tuple[tuple[int, int], ...]:
    """ "6:6,12:12" as ((6, 6), (12, 12)); :class:`ConfigError` for anything else."""
    try:
        return tuple((int(s), int(t)) for s, t in (pair.split(":") for pair in text.split(",")))
    except ValueError:
        raise ConfigError(f"--pairs {text}: write STUDENT:TEACHER layers, for instance 6:6,12:12") from None


def _speech(data: Path | None, split: str, minutes: float | None, default: float) -> list:
    """The utterances of a manifest, or synthetic ones; the first ``minutes`` of them."""
    from kdkit.corpora.synthetic import build_synthetic, subset
    from kdkit.manifest import read_manifest

    if data is None:
        wanted = default if minutes is None else minutes
        return build_synthetic(minutes={split: wanted})[split]
    utterances = read_manifest(data)
    return utterances if minutes is None else subset(utterances, minutes)


def _say_skipped(batches) -> None:
    if batches.skipped:
        name, reason = batches.skipped[0]
        print(f"{len(batches.skipped)} utterances were left out, the first: {name}: {reason}")


def _shape_only(build, config):
    """A module without memory for its weights: counting the parameters of a large one costs nothing."""
    import torch

    with torch.device("meta"):
        return build(config)


def main() -> None:
    """Entry point of the ``kdkit`` command."""
    try:
        app()
    except KdkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
