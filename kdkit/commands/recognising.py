"""``kdkit evaluate``: what a recogniser is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import Data, Minutes, app, speech_of


@app.command(epilog="Example: kdkit evaluate runs/recogniser/recogniser.safetensors --split test-other")
def evaluate(
    recogniser: Annotated[
        Path, typer.Argument(help="A checkpoint of 'kdkit finetune' or one shipped with the kit.")
    ],
    data: Data = None,
    split: Annotated[str, typer.Option(help="Split of the synthetic speech.")] = "test-clean",
    minutes: Minutes = None,
    examples: Annotated[int, typer.Option(min=0, help="Transcripts to show.")] = 5,
) -> None:
    """Measure the word error rate of a recogniser.

    Greedy decoding; word and character error rate with 95 % intervals.
    """
    from kdkit.ctc import load_recogniser
    from kdkit.score import describe_collapse, score
    from kdkit.training import best_device

    network, _ = load_recogniser(recogniser)
    utterances = speech_of(data, split, minutes, 10)
    texts = network.to(best_device()).transcribe(utterances)
    heard = [u for u in utterances if u.id in texts]
    for utterance in heard[:examples]:
        print(f"said:  {utterance.text}\nheard: {texts[utterance.id]}\n")
    hypotheses = [texts[u.id] for u in heard]
    print(score([u.text for u in heard], hypotheses))
    if len(heard) < len(utterances):
        print(f"{len(utterances) - len(heard)} of {len(utterances)} files could not be read")
    trouble = describe_collapse(hypotheses)
    if trouble:
        print(trouble)
