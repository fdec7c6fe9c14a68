"""The commands of the command line.

Each module registers its commands with ``app``; a command only collects what a function of the package needs and
prints what it returned. torch is imported inside commands, so that ``kdkit --help`` answers at once. Options that
several commands share: :mod:`kdkit.commands.options`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import typer
from typer.core import TyperCommand, TyperGroup

from kdkit.commands.options import ungrouped


class _Checked:
    """A command whose values are checked before it begins: numbers are finite, texts and paths are not empty.

    ``float`` accepts "nan" and "inf", and an unset shell variable gives an empty text; both would fail late.
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
    """A typer app, or a group in it, whose commands check their values and take groups of options."""

    def __init__(self, **settings):
        super().__init__(cls=_Group, rich_markup_mode=None, **settings)

    def command(self, *arguments, **settings):
        register = super().command(*arguments, **{"cls": _Command} | settings)
        return lambda function: register(ungrouped(function))


app = Commands(
    help="From a large self-supervised speech model to a small, fast recogniser. Start with: kdkit report",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

bench = Commands(help="Measure speed, as ratios from one run.", no_args_is_help=True)
app.add_typer(bench, name="bench")


def speech_of(data: Path | None, split: str, minutes: float | None, default: float) -> list:
    """The utterances of manifest ``data``, all or the first ``minutes``; None: synthetic speech of a split, of
    ``minutes`` or ``default`` minutes.
    """
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
