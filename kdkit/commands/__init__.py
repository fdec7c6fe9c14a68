"""The commands of the command line, and the options that several of them share.

Each module registers its commands with ``app``; a command only collects what a function of the package needs and
prints what it found. torch is imported inside commands, so that ``kdkit --help`` answers at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup


class _Checked:
    """A command whose values make sense before it begins: numbers are finite, texts and paths are not empty.

    ``float`` takes "nan" and "inf", an empty shell variable gives an empty text, and both fail late and in odd ways.
    """

    def parse_args(self, context: typer.Context, arguments: list[str]) -> list[str]:
        if "" in arguments:
            before = arguments[arguments.index("") - 1] if arguments[0] != "" else "the first argument"
            raise typer.BadParameter(f"an empty value after {before}: is a shell variable not set?", context)
        rest = super().parse_args(context, arguments)
        for parameter in self.get_params(context):
            values = context.params.get(parameter.name)
            for value in values if isinstance(values, (list, tuple)) else (values,):
                if isinstance(value, float) and not math.isfinite(value):
                    raise typer.BadParameter(f"{value} is not a finite number", context, parameter)
        return rest


class _Command(_Checked, TyperCommand):
    pass


class _Group(_Checked, TyperGroup):
    pass


class Commands(typer.Typer):
    """A typer app, or a group in it, of commands that check their values (:class:`_Checked`)."""

    def __init__(self, **settings):
        super().__init__(cls=_Group, rich_markup_mode=None, **settings)

    def command(self, *arguments, **settings):
        return super().command(*arguments, **{"cls": _Command} | settings)


app = Commands(
    help="From a large self-supervised speech model to a small, fast recogniser. Start with: kdkit report",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

bench = Commands(help="Measure speed, as ratios from one run.", no_args_is_help=True)
app.add_typer(bench, name="bench")


def _folder_to_write(path: Path | None) -> Path | None:
    from kdkit.common.files import check_output

    return None if path is None else check_output(path, folder=True)


def _file_to_write(path: Path | None) -> Path | None:
    from kdkit.common.files import check_output

    return None if path is None else check_output(path)


def folder_option(help: str, *names: str, **settings) -> object:
    """An option for a folder that results go to: tried before the work begins."""
    return typer.Option(*names, help=help, callback=_folder_to_write, **settings)


def file_option(help: str, *names: str, **settings) -> object:
    """An option for a file that results go to: tried before the work begins."""
    return typer.Option(*names, help=help, callback=_file_to_write, **settings)


Out = Annotated[Path, folder_option("Folder for what is made.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything that is drawn.")]
Steps = Annotated[int, typer.Option(min=1, max=10**8, help="Optimiser steps.")]
Rate = Annotated[float, typer.Option("--lr", min=0, help="Highest learning rate.")]
BatchSeconds = Annotated[float, typer.Option(min=1, help="Seconds of speech in a batch, padding included.")]
Data = Annotated[
    Path | None, typer.Option(help="Manifest (JSON lines) of your own speech; default: synthetic speech.")
]
Accumulate = Annotated[int, typer.Option(min=1, max=4096, help="Batches for one step, in every process.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16 (GPU).")]
Board = Annotated[
    bool, typer.Option("--tensorboard", help="Also write TensorBoard curves to OUT/tensorboard.")
]
Bins = Annotated[int, typer.Option(min=1, help="Mel bins of the Fbank.")]
Normalisation = Annotated[str, typer.Option(help="Of Fbank: corpus, utterance or mean.")]
Floor = Annotated[
    float,
    typer.Option(min=0, help="Fbank energies end so many dB below the utterance's loudest; 0: nowhere."),
]
AdaptTo = Annotated[
    str, typer.Option(help="What adaptation learns: the teacher's h0, its front-end's output, or both.")
]
Deep = Annotated[bool, typer.Option("--deep", help="Two convolutions in the Fbank front-end, not one.")]
Warp = Annotated[
    float,
    typer.Option(min=0, help="Fbank of other vocal tracts, frequencies changed by up to this share: 0.1."),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start anew: what an earlier run left in --out is removed.")
]
SaveEvery = Annotated[
    str, typer.Option(metavar="STEPS|MINUTESmin", help="Between checkpoints: steps, or a time such as 5min.")
]
Minutes = Annotated[float | None, typer.Option(min=0, help="Use the first so many minutes.")]


def save_interval(text: str) -> dict[str, float]:
    """``--save-every`` as settings of :class:`kdkit.training.recipe.TrainConfig`; :class:`ConfigError` for anything
    else.
    """
    from kdkit.common.errors import ConfigError

    try:
        if text.endswith("min"):
            return {"save_minutes": float(text.removesuffix("min"))}
        return {"save_every": int(text)}
    except ValueError:
        raise ConfigError(f"--save-every {text}: give steps (200) or minutes (5min)") from None


def speech_of(data: Path | None, split: str, minutes: float | None, default: float) -> list:
    """The utterances of a manifest, or synthetic ones; the first ``minutes`` of them."""
    from kdkit.speech.corpora.synthetic.build import build_synthetic
    from kdkit.speech.manifest import read_manifest, subset

    if data is None:
        wanted = default if minutes is None else minutes
        return build_synthetic(minutes={split: wanted})[split]
    utterances = read_manifest(data)
    return utterances if minutes is None else subset(utterances, minutes)


def say_skipped(skipped: Sequence[tuple[str, ...]], of: str = "") -> None:
    """Prints how many utterances were left out, and the first: (id, reason) or (id,)."""
    if skipped:
        some = " ".join(filter(None, (f"{len(skipped)} utterances", of)))
        print(f"{some} were left out, the first: {': '.join(skipped[0])}")
