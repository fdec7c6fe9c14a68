"""``kdkit lm``: an n-gram language model from any text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import app
from kdkit.commands.options import file_option
from kdkit.common.errors import TextError


@app.command(
    epilog="Example: kdkit lm transcripts.txt --order 3 --out lm.arpa; then: kdkit evaluate RECOGNISER --lm lm.arpa"
)
def lm(
    text: Annotated[
        list[Path], typer.Argument(help="Text files, one sentence a line, or manifests (.jsonl).")
    ],
    out: Annotated[Path, file_option("The ARPA file to write.")],
    order: Annotated[int, typer.Option(min=1, help="Words (or letters) of the longest n-grams.")] = 3,
    unit: Annotated[str, typer.Option(help="word, or letter: a model that spells new words too.")] = "word",
    test: Annotated[Path | None, typer.Option(help="Other text, to measure the perplexity on.")] = None,
    recogniser: Annotated[
        str | None,
        typer.Option(help="Recogniser (file, folder or name) whose letters are kept; default: a to z, '."),
    ] = None,
    spell_numbers: Annotated[
        bool, typer.Option("--spell-numbers", help="Spell numbers and signs out, as kdkit prepare does.")
    ] = False,
) -> None:
    """Estimate an n-gram language model (interpolated modified Kneser-Ney) and write it in ARPA format.

    Do not use the text of the test speech. Text is cleaned like transcripts: lower case, no accents, punctuation or
    tags. Words with characters outside the recogniser's letters count as unknown.
    """
    from kdkit.recognition.lm import END, estimate, sentences_of
    from kdkit.speech.text import VOCABULARY
    from kdkit.speech.transcripts import UNKNOWN, Cleaning

    if recogniser is not None:
        from kdkit.recognition.loading import load_network
        from kdkit.recognition.network import vocabulary_of

    vocabulary = VOCABULARY if recogniser is None else vocabulary_of(load_network(recogniser))
    cleaning = Cleaning(vocabulary, spell_numbers)
    sentences = list(sentences_of(text, unit, cleaning))
    if not sentences:
        raise TextError(f"{', '.join(map(str, text))}: not one word for a language model in it")
    other = list(sentences_of([test], unit, Cleaning(vocabulary, spell_numbers))) if test else []
    if test and not other:
        raise TextError(f"{test}: not one word to measure the perplexity on in it")
    model = estimate(sentences, order)
    model.write(out)
    units = sum(map(len, sentences))
    print(f"{len(sentences)} sentences, {units} {unit}s, {len(model.words)} different")
    if cleaning.tags:
        print(cleaning.tags)
    lost = sum(sentence.count(UNKNOWN) for sentence in sentences)
    if lost:
        print(f"{lost} words ({100 * lost / units:.1f} %) have other characters and count as {UNKNOWN}")
    grams = [sum(len(gram) == n for gram in model.log10) for n in range(1, order + 1)]
    print("n-grams: " + ", ".join(f"{count} of order {n}" for n, count in enumerate(grams, start=1)))
    if test:
        print(
            f"{test}: perplexity {model.perplexity(other):.1f} ({END} counted), "
            f"{100 * model.unknown(other):.1f} % unknown {unit}s"
        )
    print(f"language model: {out}")
