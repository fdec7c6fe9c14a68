"""``kdkit statistics`` and ``swap``: Fbank statistics, and an Fbank front-end for a trained waveform student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import app, say_skipped, speech_of
from kdkit.commands.options import (
    AdaptTo,
    Bins,
    Data,
    FbankOptions,
    Minutes,
    Out,
    RunOptions,
    Steps,
    file_option,
)
from kdkit.common.errors import ConfigError


@app.command(epilog="Example: kdkit statistics --data train.jsonl --out statistics.json")
def statistics(
    data: Data = None,
    minutes: Minutes = None,
    bins: Bins = 80,
    out: Annotated[Path, file_option("File to write, JSON.")] = Path("statistics.json"),
) -> None:
    """Mean and deviation of every Fbank bin over a corpus.

    For 'kdkit distill --statistics', which stores them in the student's checkpoint.
    """
    from kdkit.fbank import corpus_statistics, save_statistics

    found = corpus_statistics(speech_of(data, "unlabelled", minutes, 60), bins=bins)
    save_statistics(out, found)
    low, high = found.mean.min().item(), found.mean.max().item()
    print(
        f"{found.count} frames of {found.seconds / 3600:.2f} hours; means of the bins {low:.2f} to {high:.2f}"
    )
    print(f"statistics: {out}")


@dataclass
class SwapRunOptions(RunOptions):
    """How the new front-end is trained."""

    steps: Steps = 600


@app.command(
    epilog="Examples: kdkit swap tiny-dt-waveform --adapt 300 --steps 600 --out runs/swapped\n\n"
    "kdkit swap runs/recogniser/recogniser.safetensors --data unlabelled.jsonl --out runs/fast"
)
def swap(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(help="A waveform student, shipped or a checkpoint, or a waveform recogniser."),
    ],
    out: Out,
    *,
    data: Data = None,
    minutes: Minutes = None,
    adapt: Annotated[int, typer.Option(min=0, help="Steps in which the new front-end alone learns.")] = 300,
    adapt_to: AdaptTo = "h0",
    like: Annotated[
        str, typer.Option(help="Preset of an Fbank student whose front-end's settings are taken.")
    ] = "sw-fbank",
    front_end: FbankOptions,
    run: SwapRunOptions,
) -> None:
    """Give a trained waveform student an Fbank front-end.

    Its encoder (and a recogniser's CTC head) is kept. The new front-end first learns the encoder's input alone, then
    both are trained to follow the old student. Needs speech, but no labels.
    """
    from kdkit.distill import DistillTask, swap_losses
    from kdkit.fbank import fit_statistics
    from kdkit.recognition.ctc import CTCModel, save_recogniser
    from kdkit.recognition.loading import load_start
    from kdkit.speech.batches import Batches
    from kdkit.students import swap_front_end
    from kdkit.teachers import Teacher, origin, save_model
    from kdkit.training.loop import train
    from kdkit.training.processes import held, processes
    from kdkit.training.run_log import lasting

    start = load_start(model)
    recogniser = start if isinstance(start, CTCModel) else None
    old = start if recogniser is None else recogniser.model
    if old.config.front_end != "waveform":
        raise ConfigError(f"{model} has the {old.config.front_end} front-end already: nothing to swap")
    if adapt >= run.steps:
        raise ConfigError(f"--adapt {adapt} leaves none of {run.steps} steps for learning together")
    losses = swap_losses(old.config, adapt, adapt_to)
    speech = speech_of(data, "unlabelled", minutes, 60)
    path = out / ("recogniser.safetensors" if recogniser else "student.safetensors")
    context.with_resource(held(out))
    new = swap_front_end(old, run.seed, like, **front_end.settings())
    fit_statistics(new, speech)
    teacher = Teacher(old.requires_grad_(False).eval(), None, model, {})
    task = DistillTask(new, teacher, losses)
    batches = Batches(speech, run.batch_seconds, run.seed)
    recipe = run.recipe(stages=(adapt,) if adapt else ())
    if run.fresh and processes().is_main_process:
        path.unlink(missing_ok=True)
    title = f"swapping the front-end of {Path(model).stem}"
    log = train(task, batches, recipe, out, resume=not run.fresh, title=title)
    if not processes().is_main_process:
        return
    meta = {
        **task.settings,
        **task.origin,
        "from": origin(model),
        "steps": run.steps,
        "last": lasting(log[-1]),
    }
    if recogniser:
        fast = CTCModel(new, recogniser.vocabulary)
        fast.head, fast.mask_embedding = recogniser.head, recogniser.mask_embedding
        fast.window = recogniser.window
        save_recogniser(path, fast, meta)
    else:
        save_model(path, new, meta)
    say_skipped(batches.skipped)
    print(f"{'recogniser' if recogniser else 'student'}: {path}")
