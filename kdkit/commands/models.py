"""``kdkit models``, ``structures`` and ``probe``: structures, their costs, and what their layers know."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import app, speech_of
from kdkit.commands.options import Data, Seed, folder_option
from kdkit.common.errors import ConfigError


@app.command(epilog="Example: kdkit models")
def models() -> None:
    """List known structures and shipped models."""
    from kdkit.model.speech_model import PRESETS, SpeechModel, parameter_count
    from kdkit.teachers import ASSETS
    from kdkit.teachers.bundles import BUNDLES
    from kdkit.teachers.load import FAIRSEQ_FILES

    print(f"{'structure':18} {'parameters':>11}  layers  width  front-end")
    for name, config in PRESETS.items():
        count = parameter_count(_shape_only(SpeechModel, config))
        print(f"{name:18} {count:11,d}  {config.layers:6}  {config.dim:5}  {config.front_end}")
    print(f"\nshipped in {ASSETS}")
    for path in sorted(ASSETS.glob("*.safetensors")):
        print(f"{path.name:34} {path.stat().st_size / 1e6:6.1f} MB")
    print("\nteachers that are downloaded on first use (or give a file, a folder, or owner/name on the hub)")
    print(f"with a codebook: {', '.join(FAIRSEQ_FILES)}")
    print(f"of torchaudio: {', '.join(name for name in BUNDLES if 'ASR' not in name)}")


@app.command(epilog="Example: kdkit structures --budget 23e6 --like dt-waveform --layers 2,4,8,12")
def structures(
    budget: Annotated[
        float | None, typer.Option(min=1, max=1e11, help="Propose structures of at most so many parameters.")
    ] = None,
    like: Annotated[str, typer.Option(help="Preset that gives what is not proposed.")] = "dt-waveform",
    layers: Annotated[str, typer.Option(help="Depths to propose.")] = "2,4,8,12",
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the utterance that is timed.")] = 10,
    rounds: Annotated[int, typer.Option(min=0, help="Interleaved repeats; 0: no timing.")] = 5,
) -> None:
    """Parameters, MACs and measured latency of structures.

    Of the presets, or of structures proposed for a parameter budget.
    """
    from kdkit.model.costs import cost_table, propose
    from kdkit.model.speech_model import PRESETS, preset

    configs = PRESETS
    if budget is not None:
        configs = propose(int(budget), preset(like), depths(layers))
    for row in cost_table(configs, seconds, rounds):
        print(row)


def depths(text: str) -> list[int]:
    """ "2,4,8" as [2, 4, 8]; :class:`ConfigError` for anything else."""
    found = text.replace(" ", "").split(",")
    if not all(re.fullmatch(r"[1-9]\d{0,2}", depth) for depth in found):
        raise ConfigError(f"--layers {text}: write numbers of layers from 1 to 999, for instance 2,4,8")
    return [int(depth) for depth in found]


@app.command(
    epilog="Examples: kdkit probe tiny --out runs/probe\n\n"
    "kdkit probe runs/student/student.safetensors --against tiny\n\n"
    "kdkit probe hubert_base_ls960 --data train.jsonl --test-data test.jsonl"
)
def probe(
    model: Annotated[
        str,
        typer.Argument(
            help="'tiny', a shipped student, a bundle, file, folder or hub id (see load_teacher)."
        ),
    ] = "tiny",
    against: Annotated[
        str | None, typer.Option(help="A model whose layers are compared with these: a student's teacher.")
    ] = None,
    data: Data = None,
    test_data: Annotated[
        Path | None, typer.Option(help="Manifest of other voices, with phone times; needed with --data.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Minutes of speech to train the probes on.")] = 6,
    test_minutes: Annotated[
        float, typer.Option(min=0.1, help="Minutes of unseen voices to test them on.")
    ] = 3,
    frames: Annotated[int, typer.Option(min=100, help="Frames to train on; half as many test.")] = 20_000,
    clusters: Annotated[int, typer.Option(min=2, help="k-means centroids in each layer.")] = 100,
    out: Annotated[Path | None, folder_option("Folder for probe.json and probe.png.")] = None,
    seed: Seed = 0,
) -> None:
    """Measure what every layer of a teacher or a student knows.

    Phones, speakers, clusters, similarity to Fbank and to another model (CKA), attention; on voices that neither the
    probes nor (with synthetic speech) the model has heard. The best layer for phones is chosen on other voices than the
    test voices: on the dev split, or on every fifth speaker of --data.
    """
    import json

    from kdkit.common.files import write_atomically, write_text
    from kdkit.common.machine import best_device
    from kdkit.lessons.plots.probe import survey_figure
    from kdkit.probing import held_out, survey
    from kdkit.teachers import load_teacher

    if (data is None) != (test_data is None):
        raise ConfigError("--data and --test-data belong together: probes are judged on other voices")
    teacher, other = load_teacher(model), load_teacher(against) if against else None
    for network in filter(None, (teacher, other)):
        network.to(best_device())
    train = speech_of(data, "train", minutes, minutes)
    train, dev = held_out(train) if data else (train, speech_of(None, "dev", test_minutes, test_minutes))
    test = speech_of(test_data, "test-clean", test_minutes, test_minutes)
    print(teacher)
    found = survey(teacher, train, dev, test, frames, clusters, other, seed)
    print(found)
    if out:
        text = json.dumps(
            {"model": model, "against": against, "seed": seed, **found.to_dict()}, ensure_ascii=False
        )
        write_text(out / "probe.json", text + "\n")
        figure = survey_figure(found, title=f"{model}, compared with {against}" if against else model)
        write_atomically(out / "probe.png", lambda path: figure.savefig(path, format="png", dpi=120))
        print(f"numbers: {out / 'probe.json'}, figure: {out / 'probe.png'}")


def _shape_only(build, config):
    """A module on the meta device: counts parameters without allocating them."""
    import torch

    with torch.device("meta"):
        return build(config)
