"""The commands of the command line, and the options that several of them share.

Each module registers its commands with ``app``; a command only collects what a function of the package needs and
prints what it found. torch is imported inside commands, so that ``kdkit --help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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


def speech_of(data: Path | None, split: str, minutes: float | None, default: float) -> list:
    """The utterances of a manifest, or synthetic ones; the first ``minutes`` of them."""
    from kdkit.corpora.synthetic import build_synthetic, subset
    from kdkit.manifest import read_manifest

    if data is None:
        wanted = default if minutes is None else minutes
        return build_synthetic(minutes={split: wanted})[split]
    utterances = read_manifest(data)
    return utterances if minutes is None else subset(utterances, minutes)


def say_skipped(batches) -> None:
    if batches.skipped:
        name, reason = batches.skipped[0]
        print(f"{len(batches.skipped)} utterances were left out, the first: {name}: {reason}")
