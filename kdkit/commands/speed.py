"""``kdkit bench``: speed, as ratios from one run."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.commands import BatchSeconds, bench
from kdkit.errors import ConfigError


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
