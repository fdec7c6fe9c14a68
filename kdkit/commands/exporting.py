"""``kdkit export``: a recogniser for other runtimes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import app, say_skipped, speech_of
from kdkit.commands.options import Data, Minutes
from kdkit.common.errors import ConfigError


@app.command(
    epilog="Examples: kdkit export runs/recogniser/recogniser.safetensors --to onnx --int8\n\n"
    "kdkit export runs/recogniser/recogniser.safetensors --to huggingface --out runs/huggingface"
)
def export(
    model: Annotated[str, typer.Argument(help="A recogniser: its file, folder or name.")],
    to: Annotated[str, typer.Option(help="onnx or huggingface (waveform models).")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(help="File (ONNX) or folder (Hugging Face) to write; default: beside the model."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also an int8 ONNX file, and its WER against float32.")
    ] = False,
    data: Data = None,
    split: Annotated[str, typer.Option(help="Split of the synthetic speech that int8 is judged on.")] = (
        "test-clean"
    ),
    minutes: Minutes = None,
) -> None:
    """Write a recogniser as ONNX, Fbank included, or as a Hugging Face folder.

    What is written is checked against PyTorch: the largest difference of the logits is printed.
    """
    from kdkit.common.files import check_output
    from kdkit.recognition.loading import load_ctc

    if to not in ("onnx", "huggingface"):
        raise ConfigError(f"--to {to}: choose onnx or huggingface")
    if int8 and to != "onnx":
        raise ConfigError("--int8 is for --to onnx")
    network = load_ctc(model)
    if to == "huggingface":
        from kdkit.recognition.export.huggingface import check_huggingface, export_huggingface

        folder = check_output(out or beside(model, "-huggingface"), folder=True)
        export_huggingface(network, folder)
        difference = check_huggingface(folder, network)
        told = "not checked: transformers cannot be imported"
        print(told if difference is None else f"largest difference from PyTorch: {difference:.1e}")
        print(f"folder: {folder}")
        return
    from kdkit.recognition.evaluate import evaluate
    from kdkit.recognition.export.onnx import check_onnx, export_onnx, quantise_onnx
    from kdkit.recognition.loading import OnnxNetwork
    from kdkit.recognition.wer import compare

    path = export_onnx(network, check_output(out or beside(model, ".onnx")))
    differences = check_onnx(path, network)
    print(f"largest difference of the logits from PyTorch: {max(differences.values()):.1e}")
    print("  " + ", ".join(f"{heard} {value:.1e}" for heard, value in differences.items()))
    print(f"ONNX: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if not int8:
        return
    small = quantise_onnx(path, path.with_name(f"{path.stem}-int8.onnx"))
    print(f"int8: {small} ({small.stat().st_size / 1e6:.1f} MB)")
    speech = speech_of(data, split, minutes, 10)
    before, after = (evaluate(OnnxNetwork(file), speech, name=str(data or split)) for file in (path, small))
    print(f"float32 {before.score}\n        {before.cost}")
    print(f"int8    {after.score}\n        {after.cost}")
    say_skipped(after.skipped)
    change = compare(after.score, before.score)
    print(f"int8 against float32: {change.verdict}, {change}")


def beside(model: str, ending: str) -> Path:
    """Where an export goes by default: beside a file or folder; for a name, which the hub's have after their owner's,
    in the current folder.
    """
    place = Path(model).expanduser()
    if place.is_file():
        place = place.with_suffix("")
    else:
        # "." has no name of its own
        place = Path(os.path.abspath(place)) if place.exists() else Path(place.name)
    return place.with_name(place.name + ending)
