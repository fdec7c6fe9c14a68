"""A page to read and hear errors on: reference over hypothesis, word under word, with audio; no script, no network.

It works in a notebook (``IPython.display.HTML``), inside the report and as a file of its own. Errors are told apart by
sign and line as well as by colour.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import jinja2
import soundfile

from kdkit.common.errors import AudioError, TextError
from kdkit.common.files import GrowingFile
from kdkit.recognition.wer import (
    DELETION,
    EQUAL,
    INSERTION,
    SUBSTITUTION,
    Score,
    by_speaker,
    by_word,
    confusions,
    word_edits,
)
from kdkit.speech.audio import read_audio
from kdkit.speech.frames import SAMPLE_RATE
from kdkit.speech.manifest import Utterance
from kdkit.speech.transcripts import clean

FILTERS = {
    "all": "all",
    SUBSTITUTION: "substitutions",
    DELETION: "deletions",
    INSERTION: "insertions",
}
ORDERS = ("worst", "given")
_ROWS = 15  # of a table


def error_browser(
    result: Score,
    utterances: Sequence[Utterance],
    title: str,
    limit: int | None = None,
    order: str = "worst",
    sound: bool = True,
) -> str:
    """HTML of all utterances of a score, or of the first ``limit``, in ``order``: "worst" first, or as "given".

    ``utterances`` are those of :attr:`kdkit.recognition.evaluate.Evaluation.utterances`; with ``sound`` their audio is
    in the page, as mp3 (about 4 kB a second). Raises :class:`TextError` when they do not belong to ``result``.
    """
    return "".join(_pieces(result, utterances, title, limit, order, sound))


def write_error_browser(path: str | Path, *args, title: str, **options) -> None:
    """Writes :func:`error_browser` as a page of its own, utterance by utterance
    (:class:`kdkit.common.files.GrowingFile`).
    """
    pieces = _pieces(*args, title=title, **options)
    head = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    first = f"{head}<title>{escape(title)}</title>\n{next(pieces)}"  # raises before anything is written
    with GrowingFile(Path(path)) as file:
        file.add(first)
        for piece in pieces:
            file.add(piece)


def _pieces(
    result: Score,
    utterances: Sequence[Utterance],
    title: str,
    limit: int | None = None,
    order: str = "worst",
    sound: bool = True,
) -> Iterator[str]:
    """:func:`error_browser`, an utterance at a time."""
    if [clean(u.text, vocabulary=result.vocabulary) for u in utterances] != list(result.references):
        raise TextError(
            f"the score has {result.utterances} references, the {len(utterances)} utterances given have other texts: "
            "give the utterances that were scored, in the same order"
        )
    if order not in ORDERS:
        raise TextError(f"order is {order!r}: choose one of {', '.join(ORDERS)}")
    shown = list(range(len(utterances)))
    if order == "worst":
        shown.sort(key=lambda i: -result.word_errors[i] / max(1, result.word_counts[i]))
    shown = shown[:limit]
    about = f"{result}. {result.substitutions} substitutions, {result.deletions} deletions, "
    about += f"{result.insertions} insertions in {result.words} words of {result.utterances} utterances"
    about += f"; {len(shown)} of them below, {'the worst first' if order == 'worst' else 'as given'}."
    name = "errors-" + hashlib.sha256(f"{title}{result.hypotheses}".encode()).hexdigest()[:8]
    loader = jinja2.PackageLoader("kdkit.recognition")
    template = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template(
        "errors.html.j2"
    )
    yield template.module.head(name, title, about, _tables(result, utterances), FILTERS)
    for i in shown:
        words = word_edits(result.references[i], result.hypotheses[i])
        kinds = sorted({kind for kind, _, _ in words} - {EQUAL})
        audio, missing = _mp3(utterances[i]) if sound else ("", "")
        yield template.module.article(kinds, _about(result, i, utterances[i]), words, audio, missing)
    yield "</div>\n"


def _about(result: Score, i: int, utterance: Utterance) -> str:
    facts = [utterance.id, f"{utterance.duration:.1f} s", utterance.speaker]
    errors = f"{result.word_errors[i]} errors in {result.word_counts[i]} words"
    return f"{', '.join(filter(None, facts))}: {errors}"


def _mp3(utterance: Utterance) -> tuple[str, str]:
    """(base64 of the audio as mp3, "") or ("", why there is none)."""
    try:
        wave = read_audio(utterance.audio)
    except AudioError as error:
        return "", str(error)
    packed = io.BytesIO()
    soundfile.write(packed, wave.numpy(), SAMPLE_RATE, format="MP3")
    return base64.b64encode(packed.getvalue()).decode("ascii"), ""


def _tables(result: Score, utterances: Sequence[Utterance]) -> dict[str, list[tuple[str, str]]]:
    """{heading: rows} of speakers, words and confusions."""
    words = [
        (w.word, f"{w.substituted + w.deleted} of {w.said} missed, {w.inserted} wrongly written")
        for w in by_word(result)[:_ROWS]
    ]
    pairs = [(f"{said} → {written}", str(times)) for said, written, times in confusions(result)[:_ROWS]]
    tables = {"Words with most errors": words, "Confusions": pairs}
    speakers = [utterance.speaker for utterance in utterances]
    if not any(speakers):
        return tables
    known = [
        (part.speaker, f"WER {100 * part.wer:.1f} % of {part.words} words")
        for part in by_speaker(result, speakers)[:_ROWS]
    ]
    unknown = [("unknown", f"{n} utterances")] if (n := speakers.count("")) else []
    return {"Speakers": known + unknown} | tables
