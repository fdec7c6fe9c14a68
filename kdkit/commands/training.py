"""``kdkit distill`` and ``finetune``: from a teacher to a recogniser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import (
    Accumulate,
    AdaptTo,
    BatchSeconds,
    Bins,
    Board,
    Data,
    Deep,
    Floor,
    Fresh,
    Minutes,
    Normalisation,
    Out,
    Precision,
    Rate,
    SaveEvery,
    Seed,
    Steps,
    Warp,
    app,
    save_interval,
    say_skipped,
    speech_of,
)
from kdkit.common.errors import ConfigError


@app.command(
    epilog="Examples: kdkit distill tiny-dt-fbank --steps 2000 --minutes 600 --out runs/student\n\n"
    "kdkit distill tiny-sw-fbank --discriminative 0.4 --variant codebook --cache --out runs/both\n\n"
    "kdkit distill tiny-dt-fbank --adapt 300 --steps 2300 --out runs/adapted\n\n"
    "accelerate launch --num_processes 4 -m kdkit distill dt-fbank --teacher hubert.safetensors --data train.jsonl "
    "--out runs/base"
)
def distill(
    context: typer.Context,
    student: Annotated[str, typer.Argument(help="Structure of the student: a preset of 'kdkit models'.")],
    out: Out,
    teacher: Annotated[
        str, typer.Option(help="'tiny', a bundle, file, folder or hub id: whatever load_teacher takes.")
    ] = "tiny",
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
    adapt: Annotated[
        int,
        typer.Option(min=0, help="Front-end adaptation: steps in which the front-end alone learns H^0."),
    ] = 0,
    adapt_to: AdaptTo = "h0",
    restart: Annotated[bool, typer.Option(help="Start the learning rate anew after adaptation.")] = True,
    statistics: Annotated[
        Path | None,
        typer.Option(help="Fbank statistics of 'kdkit statistics'; default: of the first 500 utterances."),
    ] = None,
    bins: Bins = 80,
    normalisation: Normalisation = "corpus",
    floor: Floor = 0,
    deep: Deep = False,
    warp: Warp = 0,
    spec_augment: Annotated[
        bool, typer.Option("--spec-augment", help="Mask Fbank bins and frames in training.")
    ] = False,
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
    compiled: Annotated[
        bool, typer.Option("--compile", help="torch.compile of the layers: for long runs on a GPU.")
    ] = False,
    graphs: Annotated[
        bool, typer.Option(help="On a GPU, unless $KDKIT_FAST is 0: steps as CUDA graphs.")
    ] = True,
    tensorboard: Board = False,
    save_every: SaveEvery = "5min",
    fresh: Fresh = False,
    seed: Seed = 0,
) -> None:
    """Train a student on a teacher's hidden states and cluster ids.

    Stopped with Ctrl-C or SIGTERM, or killed, the same command goes on where it was. Several processes: accelerate
    launch.
    """
    from kdkit.adaptation import BY_NAME, Adaptation
    from kdkit.common.validation import choice
    from kdkit.distill import DistillConfig, DistillTask, default_pairs
    from kdkit.fbank import fit_statistics, load_statistics
    from kdkit.model.speech_model import preset
    from kdkit.speech.batches import Batches
    from kdkit.students import new_student
    from kdkit.teachers import load_teacher, save_model
    from kdkit.teachers.pretrain import kmeans_codebook
    from kdkit.teachers.targets import TargetCache
    from kdkit.training.loop import held, processes, train
    from kdkit.training.recipe import TrainConfig
    from kdkit.training.run_log import lasting

    source, second = load_teacher(teacher), labeller and load_teacher(labeller)
    structure = replace(
        preset(student),
        bins=bins,
        normalisation=normalisation,
        fbank_floor=floor,
        fbank_deep=deep,
        fbank_warp=warp,
        spec_augment=spec_augment,
    )
    if (adapt or statistics) and structure.front_end != "fbank":
        raise ConfigError(f"--adapt and --statistics are for Fbank students; {student} has a waveform CNN")
    follows = BY_NAME[choice(adapt_to, "--adapt-to", tuple(BY_NAME))]
    network = new_student(structure, source.model if inherit else None, seed)
    speech = speech_of(data, "unlabelled", minutes, 60)
    recipe = TrainConfig(
        steps=steps,
        lr=lr,
        stages=(adapt,) if adapt and restart else (),
        seed=seed,
        accumulate=accumulate,
        precision=precision,
        compile=compiled,
        graphs=graphs,
        tensorboard=tensorboard,
        **save_interval(save_every),
    )
    context.with_resource(held(out))
    names = second or source
    if discriminative and names.codebook is None:
        why = str(names.meta.get("codebook", "")).partition("none: ")[2]
        why = f" ({why})" if why else ""
        print(f"{names.source} has no codebook{why}: {clusters} k-means centroids of its last layer serve")
        names.codebook = kmeans_codebook(
            names.model, speech, clusters, seed=seed, keep=out / "codebook.safetensors"
        )
    losses = DistillConfig(
        layer_pairs(pairs) if pairs else default_pairs(network.config, source.config),
        regression_weight=regression,
        discriminative_weight=discriminative,
        variant=variant,
        tau=tau,
        tau_student=tau_student,
        adaptation=Adaptation(adapt, targets=follows) if adapt else None,
    )
    task = DistillTask(network, source, losses, second)
    if statistics:
        network.front_end.set_statistics(*load_statistics(statistics, structure.bins))
    else:
        fit_statistics(network, speech)
    targets = None
    if cache:
        targets = TargetCache(source, sorted(task.layers), speech, precision=precision)
        if processes().is_main_process:
            print(targets.announcement)
        with processes().main_process_first():  # the others find it made
            targets.build()
    batches = Batches(speech, batch_seconds, seed, targets=targets)
    path = out / "student.safetensors"
    if fresh and processes().is_main_process:
        path.unlink(missing_ok=True)
    log = train(task, batches, recipe, out, resume=not fresh, title=f"distilling {student}")
    if processes().is_main_process:
        meta = {"preset": student, **task.settings, **task.origin, "steps": steps, "last": lasting(log[-1])}
        save_model(path, network, meta)
        say_skipped(batches.skipped)
        print(f"student: {path}")


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
    data: Data = None,
    minutes: Annotated[
        list[float] | None,
        typer.Option(
            min=0,
            help="Label budget, the first so many minutes; repeat to compare. Default: 10, or all of --data.",
        ),
    ] = None,
    dev: Annotated[
        Path | None,
        typer.Option(
            help="Manifest that decides which weights are used; default: none for --data, else synthetic."
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            help="Manifest, or split of the synthetic speech, to measure the result on; repeat for more."
        ),
    ] = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Start from random weights, for comparison.")
    ] = False,
    new_head: Annotated[
        bool,
        typer.Option(
            "--new-head", help="A new CTC head for kdkit's letters, though the recogniser MODEL has one."
        ),
    ] = False,
    steps: Steps = 1000,
    lr: Rate = 1e-3,
    freeze: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the steps in which only the CTC head learns.")
    ] = 0.0,
    front_end_rate: Annotated[
        float,
        typer.Option(min=0, help="Share of the learning rate that the front-end has; 0: it stays as it is."),
    ] = 1.0,
    patience: Annotated[
        int, typer.Option(min=0, help="End after so many evaluations on dev without a better one; 0: never.")
    ] = 0,
    average: Annotated[
        int, typer.Option(min=1, help="Also try the mean of the weights of so many last evaluations.")
    ] = 1,
    evaluate_every: Annotated[
        int, typer.Option(min=0, help="Steps between evaluations on dev; 0: a tenth.")
    ] = 0,
    mask_time: Annotated[float, typer.Option(min=0, max=1, help="Share of frames hidden in training.")] = 0.2,
    mask_channel: Annotated[float, typer.Option(min=0, max=1, help="Share of channels hidden.")] = 0.1,
    augmenting: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Random equalisers and noise in training.")
    ] = True,
    spec_augment: Annotated[
        bool, typer.Option("--spec-augment", help="Mask Fbank bins and frames in training.")
    ] = False,
    warp: Warp = 0,
    speed: Annotated[
        list[float] | None,
        typer.Option(help="Speed perturbation: a factor to draw from; repeat, for instance 0.9, 1 and 1.1."),
    ] = None,
    gain: Annotated[
        float,
        typer.Option(
            min=0, max=100, help="Random gains up to so many dB, up or down: for recordings of other levels."
        ),
    ] = 0.0,
    batch_seconds: BatchSeconds = 16,
    accumulate: Accumulate = 1,
    precision: Precision = "auto",
    tensorboard: Board = False,
    save_every: SaveEvery = "5min",
    fresh: Fresh = False,
    allow_speaker_overlap: Annotated[
        bool, typer.Option("--allow-speaker-overlap", help="Accept test voices that are heard in training.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Fine-tune a model on labelled speech with CTC.

    A recogniser (kdkit's, a CTC model of transformers, an ASR bundle of torchaudio) keeps its head and its vocabulary;
    other models get a new head, for a to z and the apostrophe. The weights with the lowest word error rate on dev are
    kept. Several --minutes give a table, and OUT/results.json.
    Stopped with Ctrl-C or SIGTERM, or killed, the same command goes on where it was.
    """
    from kdkit.recognition.ctc import MaskConfig
    from kdkit.recognition.finetune import (
        FineTuneConfig,
        augmented_fbank,
        budget_table,
        budgets_of,
        fine_tune_budgets,
        from_scratch,
        head_of,
    )
    from kdkit.recognition.loading import load_start
    from kdkit.speech.augment import AUGMENTED, UNCHANGED
    from kdkit.speech.corpora.summary import check_speakers
    from kdkit.speech.manifest import distinct_names, is_manifest
    from kdkit.teachers import origin
    from kdkit.training.loop import held, processes
    from kdkit.training.recipe import TrainConfig

    def start(speech):
        network = load_start(model, new_head or scratch)
        network = from_scratch(network, speech, seed) if scratch else network
        if processes().is_main_process and speech is next(iter(budgets.values())):
            print(f"CTC head: {head_of(network, model)}")
        return augmented_fbank(network, spec_augment, warp)

    wanted = minutes or ([10.0] if data is None else [])
    speech = speech_of(data, "train", max(wanted, default=None), 10)
    budgets = budgets_of(speech, wanted or [sum(u.duration for u in speech) / 60])
    watched = speech_of(dev, "dev", None if dev else 2, 2) if dev or data is None else []
    if test is None and data is None and len(budgets) > 1:
        test = ["test-clean"]
    tests = {
        name: speech_of(Path(given) if is_manifest(given) else None, given, None, 10)
        for name, given in zip(distinct_names(test or []), test or [], strict=True)
    }
    named = {"train": speech, "dev": watched} | {f"test {name}": some for name, some in tests.items()}
    notes = check_speakers({name: some for name, some in named.items() if some}, allow_speaker_overlap)
    recipe = TrainConfig(
        steps=steps,
        lr=lr,
        schedule="tri-stage",
        warmup=0.1,
        seed=seed,
        accumulate=accumulate,
        precision=precision,
        evaluate_every=evaluate_every,
        tensorboard=tensorboard,
        **save_interval(save_every),
    )
    augmentation = AUGMENTED if augmenting else None
    if gain:
        augmentation = replace(augmentation or UNCHANGED, gain=(-gain, gain))
    config = FineTuneConfig(
        batch_seconds=batch_seconds,
        mask=MaskConfig(time=mask_time, channel=mask_channel),
        augmenting=augmentation,
        speeds=tuple(speed or ()),
        freeze=freeze,
        front_end_rate=front_end_rate,
        patience=patience,
        average=average,
    )
    meta = {"from": origin(model), "start": "scratch" if scratch else "given"}
    context.with_resource(held(out))
    rows = fine_tune_budgets(start, budgets, recipe, out, watched, tests, config, meta, resume=not fresh)
    if processes().is_main_process:
        for note in notes if data else []:
            print(f"note: {note}")
        print(budget_table(rows))
        for row in rows:
            say_skipped(row["skipped"], "of the training speech")
            for name, result in row["tests"].items():
                say_skipped([(skipped,) for skipped in result.get("skipped", ())], f"of {name}")
            print(f"recogniser: {row['recogniser']}")


def layer_pairs(text: str) -> tuple[tuple[int, int], ...]:
    """ "6:6,12:12" as ((6, 6), (12, 12)); :class:`ConfigError` for anything else."""
    try:
        return tuple((int(s), int(t)) for s, t in (pair.split(":") for pair in text.split(",")))
    except ValueError:
        raise ConfigError(f"--pairs {text}: write STUDENT:TEACHER layers, for instance 6:6,12:12") from None
