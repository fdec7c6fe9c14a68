"""Options that several commands share, alone and in groups.

A group is a dataclass whose fields are options. A command with a parameter of that type has all of its fields as
options of its own, and gets them as one object (:func:`ungrouped`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_type_hints

import typer

from kdkit.common.errors import ConfigError

if TYPE_CHECKING:
    from kdkit.training.recipe import TrainConfig


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


Out = Annotated[Path, folder_option("Folder for the results.")]
Data = Annotated[
    Path | None, typer.Option(help="Manifest (JSON lines) of your own speech; default: synthetic speech.")
]
Minutes = Annotated[float | None, typer.Option(min=0, help="Use the first so many minutes.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all random numbers.")]
Steps = Annotated[int, typer.Option(min=1, max=10**8, help="Optimiser steps.")]
BatchSeconds = Annotated[float, typer.Option(min=1, help="Seconds of speech in a batch, padding included.")]
Bins = Annotated[int, typer.Option(min=1, help="Mel bins of the Fbank.")]
AdaptTo = Annotated[
    str, typer.Option(help="What adaptation learns: the teacher's h0, its front-end's output, or both.")
]
Warp = Annotated[
    float,
    typer.Option(
        min=0, help="Fbank of other vocal tract lengths: frequencies scaled by up to this share, such as 0.1."
    ),
]
SpecAugment = Annotated[
    bool, typer.Option("--spec-augment", help="Mask Fbank bins and frames in training (SpecAugment).")
]


@dataclass
class FbankOptions:
    """The Fbank front-end of a student; what is not given is as in its preset."""

    bins: Annotated[int | None, typer.Option(min=1, help="Mel bins of the Fbank.")] = None
    normalisation: Annotated[str | None, typer.Option(help="Of Fbank: corpus, utterance or mean.")] = None
    floor: Annotated[
        float | None,
        typer.Option(
            min=0, help="Clip Fbank energies so many dB below the utterance's loudest; 0: no clipping."
        ),
    ] = None
    channels: Annotated[
        int | None,
        typer.Option(min=0, help="Of a first convolution in the Fbank front-end; 0: only the strided one."),
    ] = None

    def settings(self) -> dict[str, object]:
        """Settings of :class:`kdkit.model.speech_model.ModelConfig` that were given; the others are the student's."""
        given = {
            "bins": self.bins,
            "normalisation": self.normalisation,
            "fbank_floor": self.floor,
            "fbank_channels": self.channels,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass
class RunOptions:
    """How a training runs."""

    steps: Steps = 1000
    lr: Annotated[float, typer.Option("--lr", min=0, help="Peak learning rate.")] = 1e-3
    batch_seconds: BatchSeconds = 32
    accumulate: Annotated[int, typer.Option(min=1, max=4096, help="Batches per step, in every process.")] = 1
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16 (GPU).")] = "auto"
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard curves to OUT/tensorboard.")
    ] = False
    save_every: Annotated[
        str,
        typer.Option(
            metavar="STEPS|MINUTESmin", help="Interval of checkpoints: steps, or a time such as 5min."
        ),
    ] = "5min"
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew: what an earlier run left in --out is removed.")
    ] = False
    seed: Seed = 0

    def recipe(self, **more) -> TrainConfig:
        """The recipe of the training; ``more`` goes to :class:`kdkit.training.recipe.TrainConfig`."""
        from kdkit.training.recipe import TrainConfig

        return TrainConfig(
            steps=self.steps,
            lr=self.lr,
            seed=self.seed,
            accumulate=self.accumulate,
            precision=self.precision,
            tensorboard=self.tensorboard,
            **save_interval(self.save_every),
            **more,
        )


def save_interval(text: str) -> dict[str, float]:
    """``--save-every`` as a setting of :class:`kdkit.training.recipe.TrainConfig`: "200" is {"save_every": 200},
    "5min" is {"save_minutes": 5.0}. Raises :class:`ConfigError` for anything else.
    """
    try:
        if text.endswith("min"):
            return {"save_minutes": float(text.removesuffix("min"))}
        return {"save_every": int(text)}
    except ValueError:
        raise ConfigError(f"--save-every {text}: give steps (200) or minutes (5min)") from None


def ungrouped(function: Callable) -> Callable:
    """``function`` as typer wants it: each parameter that is a dataclass of options replaced by its fields."""
    hints = get_type_hints(function, include_extras=True)
    groups, parameters = {}, []
    for parameter in inspect.signature(function).parameters.values():
        kind = hints.get(parameter.name)
        if not is_dataclass(kind):
            parameters.append(parameter.replace(annotation=kind, kind=parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = kind
        options = get_type_hints(kind, include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name,
                parameter.KEYWORD_ONLY,
                default=parameter.empty if field.default is MISSING else field.default,
                annotation=options[field.name],
            )
            for field in fields(kind)
        ]
    if not groups:
        return function

    def command(**values):
        given = {
            name: kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        return function(**values, **given)

    command.__name__, command.__doc__, command.__module__ = (
        function.__name__,
        function.__doc__,
        function.__module__,
    )
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command
