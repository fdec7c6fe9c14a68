"""``kdkit corpus``: speech to train and test on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import app
from kdkit.commands.options import Seed, folder_option
from kdkit.common.errors import ConfigError


@app.command(epilog="Example: kdkit corpus --minutes train=10 --minutes test-clean=5")
def corpus(
    minutes: Annotated[
        list[str] | None, typer.Option(metavar="SPLIT=MINUTES", help="Split and its length; repeat for more.")
    ] = None,
    root: Annotated[
        Path | None, folder_option("Where corpora are kept; default: the cache, $KDKIT_CACHE.")
    ] = None,
    seed: Seed = 0,
    version: Annotated[
        int, typer.Option(help="1, or 2: few labelled voices, thousands of words, broad unlabelled speech.")
    ] = 1,
) -> None:
    """Make synthetic speech with exact phone times.

    Default: all splits at their usual length.
    """
    from kdkit.speech.corpora.synthetic.build import build_synthetic

    splits = build_synthetic(root, split_minutes(minutes) if minutes else None, seed, version=version)
    for split, utterances in splits.items():
        hours = sum(u.duration for u in utterances) / 3600
        speakers = len({u.speaker for u in utterances})
        print(f"{split}: {len(utterances)} utterances, {60 * hours:.1f} minutes, {speakers} speakers")


def split_minutes(items: list[str]) -> dict[str, float]:
    """["train=10", "dev=2"] as {"train": 10.0, "dev": 2.0}; :class:`ConfigError` for anything else."""
    minutes = {}
    for item in items:
        split, _, number = item.partition("=")
        try:
            minutes[split] = float(number)
        except ValueError:
            minutes[split] = math.nan
        if not 0 <= minutes[split] < 1e6:
            raise ConfigError(f"--minutes {item}: write SPLIT=MINUTES, for instance train=10")
    return minutes
