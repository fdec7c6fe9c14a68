"""``kdkit align``: phone times for speech that has only transcripts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import app
from kdkit.commands.options import file_option


@app.command(epilog="Example: kdkit align data/libri/dev-clean.jsonl --out data/libri/dev-clean-phones.jsonl")
def align(
    data: Annotated[Path, typer.Argument(help="Manifest (JSON lines) with transcripts.")],
    out: Annotated[Path, file_option("Manifest to write, with phone times.")],
    recogniser: Annotated[
        str | None,
        typer.Option(help="A recogniser (file, folder or name) to align with; default: torchaudio's MMS_FA."),
    ] = None,
) -> None:
    """Estimate phone times, for probing.

    A recogniser aligns the letters; torchaudio's (1.2 GB) is downloaded on first use. The phones of each word are
    eSpeak NG's. Utterances with phone times keep them.
    """
    from kdkit.common.machine import best_device
    from kdkit.recognition.alignment import add_phones, bundle_aligner, recogniser_aligner
    from kdkit.recognition.loading import load_ctc
    from kdkit.speech.manifest import read_manifest, write_manifest

    utterances = read_manifest(data)
    if recogniser is None:
        aligner = bundle_aligner(device=best_device())
    else:
        aligner = recogniser_aligner(load_ctc(recogniser).to(best_device()), Path(recogniser).name)
    write_manifest(out, add_phones(utterances, aligner))
    print(f"manifest: {out}")
