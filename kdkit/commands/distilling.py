"""``kdkit distill``: a student learns from a teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.commands import app, say_skipped, speech_of
from kdkit.commands.options import (
    AdaptTo,
    Data,
    FbankOptions,
    Minutes,
    Out,
    RunOptions,
    SpecAugment,
    Warp,
)
from kdkit.common.errors import ConfigError

if TYPE_CHECKING:
    from kdkit.distill import Adaptation
    from kdkit.training.recipe import TrainConfig


@dataclass
class LossOptions:
    """What the student learns to predict."""

    pairs: Annotated[
        str | None,
        typer.Option(
            help="Student:teacher layers, like 6:6,12:12; default: layer-wise, or prediction heads."
        ),
    ] = None
    regression: Annotated[float, typer.Option(min=0, help="Weight of the regression loss.")] = 1.0
    distance: Annotated[str, typer.Option(help="Of the regression loss: l1 or l2.")] = "l1"
    discriminative: Annotated[
        float,
        typer.Option(min=0, help="Weight (lambda) of the discriminative loss; the paper tried 0.2 to 1."),
    ] = 0.0
    variant: Annotated[str, typer.Option(help="Discriminative loss: codebook, linear or hard.")] = "codebook"
    tau: Annotated[float | None, typer.Option(help="Teacher's temperature; default: its codebook's.")] = None
    tau_student: Annotated[
        float | None, typer.Option(help="Student's temperature; default: the teacher's.")
    ] = None
    clusters: Annotated[
        int, typer.Option(min=2, help="k-means centroids for a teacher without a codebook.")
    ] = 500


@dataclass
class AdaptationOptions:
    """Front-end adaptation, the first stage of an Fbank student."""

    adapt: Annotated[
        int,
        typer.Option(min=0, help="Front-end adaptation: steps in which the front-end alone learns H^0."),
    ] = 0
    adapt_to: AdaptTo = "h0"
    restart: Annotated[bool, typer.Option(help="Restart the learning rate after adaptation.")] = True

    def adaptation(self) -> Adaptation | None:
        from kdkit.distill import Adaptation

        return Adaptation(self.adapt, self.adapt_to) if self.adapt else None


@dataclass
class StudentFbankOptions(FbankOptions):
    """The Fbank front-end, and how it changes what the student hears in training."""

    warp: Warp = 0
    spec_augment: SpecAugment = False

    def settings(self) -> dict[str, object]:
        return super().settings() | {"fbank_warp": self.warp, "spec_augment": self.spec_augment}


@dataclass
class DistillRunOptions(RunOptions):
    """How the distillation runs."""

    graphs: Annotated[bool, typer.Option(help="On a GPU, unless $KDKIT_FAST is 0: steps as CUDA graphs.")] = (
        True
    )

    def recipe(self, **more) -> TrainConfig:
        return super().recipe(graphs=self.graphs, **more)


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
    *,
    teacher: Annotated[
        str, typer.Option(help="'tiny', a bundle, file, folder or hub id: whatever load_teacher takes.")
    ] = "tiny",
    labeller: Annotated[
        str | None, typer.Option(help="A second teacher, whose cluster ids the discriminative loss follows.")
    ] = None,
    data: Data = None,
    minutes: Minutes = None,
    loss: LossOptions,
    first_stage: AdaptationOptions,
    statistics: Annotated[
        Path | None,
        typer.Option(help="Fbank statistics of 'kdkit statistics'; default: of the first 500 utterances."),
    ] = None,
    front_end: StudentFbankOptions,
    inherit: Annotated[
        bool, typer.Option(help="Initialise from every part of the teacher that has the student's shape.")
    ] = True,
    cache: Annotated[
        bool,
        typer.Option("--cache", help="Keep the teacher's targets on disk: for several students or epochs."),
    ] = False,
    run: DistillRunOptions,
) -> None:
    """Train a student on a teacher's hidden states and cluster ids.

    Stopped with Ctrl-C or SIGTERM, or killed, the same command goes on where it was. Several processes: accelerate
    launch.
    """
    from kdkit.distill import DistillConfig, DistillTask, default_pairs
    from kdkit.fbank import fit_statistics, load_statistics
    from kdkit.model.speech_model import preset
    from kdkit.speech.batches import Batches
    from kdkit.students import new_student
    from kdkit.teachers import load_teacher, save_model
    from kdkit.training.loop import train
    from kdkit.training.processes import held, processes
    from kdkit.training.run_log import lasting

    source, second = load_teacher(teacher), labeller and load_teacher(labeller)
    structure = replace(preset(student), **front_end.settings())
    if (first_stage.adapt or statistics) and structure.front_end != "fbank":
        raise ConfigError(f"--adapt and --statistics are for Fbank students; {student} has a waveform CNN")
    if statistics and structure.normalisation == "utterance":
        raise ConfigError(
            f"--statistics have no effect: {student} is normalised by every utterance's own; leave them out, or say "
            "--normalisation corpus"
        )
    adaptation = first_stage.adaptation()
    network = new_student(structure, source.model if inherit else None, run.seed)
    speech = speech_of(data, "unlabelled", minutes, 60)
    recipe = run.recipe(stages=(adaptation.steps,) if adaptation and first_stage.restart else ())
    context.with_resource(held(out))
    if loss.discriminative:
        give_codebook(second or source, speech, loss.clusters, run.seed, out)
    losses = DistillConfig(
        layer_pairs(loss.pairs) if loss.pairs else default_pairs(network.config, source.config),
        regression_weight=loss.regression,
        distance=loss.distance,
        discriminative_weight=loss.discriminative,
        variant=loss.variant,
        tau=loss.tau,
        tau_student=loss.tau_student,
        adaptation=adaptation,
    )
    task = DistillTask(network, source, losses, second)
    if statistics:
        network.front_end.set_statistics(*load_statistics(statistics, structure.bins))
    else:
        fit_statistics(network, speech)
    targets = cached_targets(task, source, speech, run.precision) if cache else None
    batches = Batches(speech, run.batch_seconds, run.seed, targets=targets)
    path = out / "student.safetensors"
    if run.fresh and processes().is_main_process:
        path.unlink(missing_ok=True)
    log = train(task, batches, recipe, out, resume=not run.fresh, title=f"distilling {student}")
    if processes().is_main_process:
        about = {"preset": student, **task.settings, **task.origin, "steps": run.steps}
        save_model(path, network, about | {"last": lasting(log[-1])})
        say_skipped(batches.skipped)
        print(f"student: {path}")


def layer_pairs(text: str) -> tuple[tuple[int, int], ...]:
    """ "6:6,12:12" as ((6, 6), (12, 12)); :class:`ConfigError` for anything else."""
    try:
        return tuple((int(s), int(t)) for s, t in (pair.split(":") for pair in text.split(",")))
    except ValueError:
        raise ConfigError(f"--pairs {text}: write STUDENT:TEACHER layers, for instance 6:6,12:12") from None


def give_codebook(teacher, speech: list, clusters: int, seed: int, out: Path) -> None:
    """Gives a teacher without a codebook one of k-means centroids, which ``out`` keeps."""
    from kdkit.teachers.pretrain import kmeans_codebook

    if teacher.codebook is not None:
        return
    why = str(teacher.meta.get("codebook", "")).partition("none: ")[2]
    why = f" ({why})" if why else ""
    print(f"{teacher.source} has no codebook{why}: {clusters} k-means centroids of its last layer serve")
    keep = out / "codebook.safetensors"
    teacher.codebook = kmeans_codebook(teacher.model, speech, clusters, seed=seed, keep=keep)


def cached_targets(task, teacher, speech: list, precision: str):
    """The teacher's targets on disk, computed by the main process where they are missing."""
    from kdkit.teachers.targets import TargetCache
    from kdkit.training.processes import processes

    targets = TargetCache(teacher, sorted(task.layers), speech, precision=precision)
    if processes().is_main_process:
        print(targets.announcement)
    with processes().main_process_first():  # the others find it made
        targets.build()
    return targets
