"""``kdkit models``, ``structures`` and ``probe``: what a model is, costs and knows."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.commands import Seed, app


@app.command(epilog="Example: kdkit models")
def models() -> None:
    """List known structures and shipped models."""
    from kdkit.models import PRESETS, SpeechModel, parameter_count
    from kdkit.teachers import ASSETS

    print(f"{'structure':18} {'parameters':>11}  layers  width  front-end")
    for name, config in PRESETS.items():
        count = parameter_count(_shape_only(SpeechModel, config))
        print(f"{name:18} {count:11,d}  {config.layers:6}  {config.dim:5}  {config.front_end}")
    print(f"\nshipped in {ASSETS}")
    for path in sorted(ASSETS.glob("*.safetensors")):
        print(f"{path.name:34} {path.stat().st_size / 1e6:6.1f} MB")


@app.command(epilog="Example: kdkit structures --budget 23e6 --like dt-waveform --layers 2,4,8,12")
def structures(
    budget: Annotated[
        float | None, typer.Option(min=1, help="Propose structures of at most so many parameters.")
    ] = None,
    like: Annotated[str, typer.Option(help="Preset that gives what is not proposed.")] = "dt-waveform",
    layers: Annotated[str, typer.Option(help="Depths to propose.")] = "2,4,8,12",
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the utterance that is timed.")] = 10,
    rounds: Annotated[int, typer.Option(min=0, help="Interleaved repeats; 0: no timing.")] = 5,
) -> None:
    """Parameters, MACs and measured latency of structures.

    Those of the presets, or of proposals for a budget.
    """
    from kdkit.models import PRESETS, preset
    from kdkit.structures import cost_table, propose

    configs = PRESETS
    if budget is not None:
        configs = propose(int(budget), preset(like), [int(depth) for depth in layers.split(",")])
    for row in cost_table(configs, seconds, rounds):
        print(row)


@app.command(epilog="Example: kdkit probe tiny --minutes 6")
def probe(
    model: Annotated[
        str, typer.Argument(help="'tiny', a shipped student's name or a checkpoint of a model.")
    ] = "tiny",
    minutes: Annotated[float, typer.Option(min=0.1, help="Minutes of speech to train the probe on.")] = 6,
    test_minutes: Annotated[
        float, typer.Option(min=0.1, help="Minutes of unseen voices to judge it on.")
    ] = 3,
    seed: Seed = 0,
) -> None:
    """Ask every layer which phone it hears.

    A linear probe for each layer, judged on voices that neither it nor the model ever heard.
    """
    from kdkit.corpora.synthetic import build_synthetic
    from kdkit.probing import phone_probe
    from kdkit.students import load_student
    from kdkit.teachers import load_teacher

    network = load_teacher().model if model == "tiny" else load_student(model)[0]
    splits = build_synthetic(minutes={"train": minutes, "test-clean": test_minutes})
    print(phone_probe(network, splits["train"], splits["test-clean"], seed=seed))


def _shape_only(build, config):
    """A module without memory for its weights: counting the parameters of a large one costs nothing."""
    import torch

    with torch.device("meta"):
        return build(config)
