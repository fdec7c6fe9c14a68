"""``kdkit bench``: speed, as ratios from one run."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.commands import bench
from kdkit.commands.options import BatchSeconds
from kdkit.common.errors import ConfigError


@bench.command("distill", epilog="Example: kdkit bench distill --size tiny --size full --rounds 5")
def bench_distill_command(
    size: Annotated[list[str] | None, typer.Option(help="tiny, full; repeat for both.")] = None,
    minutes: Annotated[float, typer.Option(min=0.5, help="Minutes of speech to draw batches from.")] = 10,
    batch_seconds: BatchSeconds = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Bursts per variant.")] = 5,
) -> None:
    """Speed of distillation: plain implementation, live targets, cached targets.

    Audio-hours per hour (quartiles), ratio to the plain implementation, peak memory, and the share of the speed of one
    large matrix product, interleaved in one run. Then the time of each part of a live step.
    """
    from kdkit.bench.distill import SIZES, Row, bench_distill
    from kdkit.common.machine import machine
    from kdkit.speech.corpora.synthetic.build import build_synthetic

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
        rows, where = bench_distill(speech, name, batch_seconds, rounds)
        print("\n".join(map(str, [*rows, *where])))


@bench.command("inference", epilog="Example: kdkit bench inference --shape 1x10 --shape 8x12 --rounds 5")
def bench_inference_command(
    size: Annotated[str, typer.Option(help="full or tiny.")] = "full",
    model: Annotated[
        list[str] | None,
        typer.Option(help="A further recogniser or teacher: file, folder or name; repeat for more."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="BATCHxSECONDS", help="Shape of the input; default: 1x10 and 8x12."),
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="plain, fp32, bf16, int8; repeat for more; default: all.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Runs per model, interleaved.")] = 5,
) -> None:
    """Speed of inference: teacher and students, waveform and Fbank.

    Parameters, MACs per second of audio, real-time factor with quartiles, time of front-end and encoder, memory, and
    ratios to the teacher and to the waveform twin, interleaved in one run. "plain" is the model as it was trained;
    fp32, bf16 and int8 are optimised for inference. A recogniser is timed without its CTC head.
    """
    from kdkit.bench.inference import FULL, TINY, bench_inference, table
    from kdkit.common.machine import machine
    from kdkit.model.inference import PRECISIONS
    from kdkit.recognition.loading import load_start

    if size not in ("full", "tiny"):
        raise ConfigError(f"--size {size}: choose full or tiny")
    known = ("plain", *PRECISIONS)
    for name in precision or ():
        if name not in known:
            raise ConfigError(f"--precision {name}: choose one of {', '.join(known)}")
    shapes = [input_shape(text) for text in shape or ("1x10", "8x12")]
    others = {source: load_start(source, new_head=True) for source in model or ()}
    print(", ".join(f"{key} {value}" for key, value in machine().items() if value))
    names, peer = FULL if size == "full" else TINY, size == "full"
    rows = bench_inference(names, precision or known, shapes, rounds, peer, others)
    print("\n".join(table(rows)))


def input_shape(text: str) -> tuple[int, float]:
    """ "8x12" as (8, 12.0): batch and seconds; :class:`ConfigError` for anything else."""
    batch, _, seconds = text.partition("x")
    try:
        found = int(batch), float(seconds)
    except ValueError:
        found = 0, 0.0
    if found[0] < 1 or not 0.1 <= found[1] < 3600:
        raise ConfigError(f"--shape {text}: write BATCHxSECONDS, for instance 8x12")
    return found
