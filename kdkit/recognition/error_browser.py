"""A page to read and hear errors on: reference over hypothesis, word under word, with the sound; no script, no network.

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
from kdkit.speech.audio import SAMPLE_RATE, read_audio
from kdkit.speech.manifest import Utterance
from kdkit.speech.transcripts import clean

CSS = """
.errors { font: 15px/1.4 system-ui, sans-serif; color: #1d2530; }
.errors article { border: 1px solid #dfe4ea; border-radius: .5rem; background: #fff; margin: .6rem 0;
padding: .6rem .9rem; }
.errors .about { color: #5b6672; font-size: .85rem; }
.errors .words { display: flex; flex-wrap: wrap; gap: .2rem .7rem; margin: .35rem 0; }
.errors .word { display: inline-flex; flex-direction: column; padding: 0 .15rem; border-bottom: 3px solid transparent; }
.errors .word > * { min-height: 1.4em; } .errors .said { font-weight: 600; } .errors .written { font-style: italic; }
.errors .word.substitution { border-bottom: 3px solid #b85c00; } .errors .word.substitution .written { color: #b85c00; }
.errors .word.deletion { border-bottom: 3px dashed #6b7480; }
.errors .word.deletion .said { text-decoration: line-through; }
.errors .word.insertion { border-bottom: 3px double #0b66b3; } .errors .word.insertion .written { color: #0b66b3; }
.errors .word.insertion .written::before { content: "+"; } .errors .word.equal .written { color: #8a94a0; }
.errors audio { height: 2rem; width: 100%; max-width: 24rem; display: block; }
.errors table { border-collapse: collapse; margin: .4rem 0; } .errors td, .errors th { padding: .15rem .7rem .15rem 0;
text-align: left; } .errors .tables { display: flex; flex-wrap: wrap; gap: 0 3rem; }
.errors label { margin-right: 1rem; }
"""
FILTERS = (
    ("all", "all"),
    (SUBSTITUTION, "substitutions"),
    (DELETION, "deletions"),
    (INSERTION, "insertions"),
)
ORDERS = ("worst", "given")


def error_browser(
    result: Score,
    utterances: Sequence[Utterance],
    title: str,
    limit: int | None = None,
    order: str = "worst",
    sound: bool = True,
) -> str:
    """HTML of all utterances of a score, or of the first ``limit``: the worst first, or as "given".

    ``utterances`` are those that ``result`` was scored on, in its order; their audio goes into the page as mp3 (about 4
    kB a second) unless ``sound`` is off. Filters are plain form elements. Raises :class:`TextError` when the two do not
    belong together.
    """
    return "".join(_pieces(result, utterances, title, limit, order, sound))


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
    name = "errors-" + hashlib.sha256(f"{title}{result.hypotheses}".encode()).hexdigest()[:8]
    about = f"{result}. {result.substitutions} substitutions, {result.deletions} deletions, "
    about += f"{result.insertions} insertions in {result.words} words of {result.utterances} utterances"
    about += f"; {len(shown)} of them below, {'the worst first' if order == 'worst' else 'as given'}."
    yield (
        f'<div class="errors" id="{name}"><style>{CSS}{_filter_css(name)}</style>\n'
        f"<p><b>{escape(title)}.</b> {escape(about)} Bold: said. Italic: written.</p>\n"
        f"{_tables(result, utterances)}\n<form>{_filters(name)}</form>\n"
    )
    for i in shown:
        yield _article(result, i, utterances[i], sound)
    yield "</div>\n"


def write_error_browser(path: str | Path, *args, title: str, **options) -> None:
    """Writes :func:`error_browser` as a page of its own, an utterance at a time
    (:class:`kdkit.common.files.GrowingFile`).
    """
    pieces = _pieces(*args, title=title, **options)
    first = page(title, next(pieces))  # raises what is wrong before anything is written
    with GrowingFile(Path(path)) as file:
        file.add(first)
        for piece in pieces:
            file.add(piece)


def page(title: str, fragment: str) -> str:
    """A fragment as a whole document; the fragment begins on the second line."""
    head = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    return f"{head}<title>{escape(title)}</title>\n{fragment}"


def _article(result: Score, i: int, utterance: Utterance, sound: bool) -> str:
    steps = word_edits(result.references[i], result.hypotheses[i])
    kinds = sorted({kind for kind, _, _ in steps} - {EQUAL})
    words = "".join(
        f'<span class="word {kind}" title="{kind}"><span class="said">{escape(said)}</span>'
        f'<span class="written">{escape(written)}</span></span>'
        for kind, said, written in steps
    )
    about = f"{utterance.id}, {utterance.duration:.1f} s" + (
        f", {utterance.speaker}" * bool(utterance.speaker)
    )
    about += f": {result.word_errors[i]} errors in {result.word_counts[i]} words"
    player = _player(utterance) if sound else ""
    return (
        f'<article class="{" ".join(f"has-{kind}" for kind in kinds)}"><div class="about">{escape(about)}</div>'
        f'<div class="words">{words}</div>{player}</article>\n'
    )


def _player(utterance: Utterance) -> str:
    try:
        wave = read_audio(utterance.audio)
    except AudioError as error:
        return f'<div class="about">no sound: {escape(str(error))}</div>'
    packed = io.BytesIO()
    soundfile.write(packed, wave.numpy(), SAMPLE_RATE, format="MP3")
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    return f'<audio controls preload="none" src="data:audio/mpeg;base64,{data}"></audio>'


def _tables(result: Score, utterances: Sequence[Utterance]) -> str:
    """Speakers, words and confusions, folded."""
    rows = {
        "Words with most errors": [
            (w.word, f"{w.substituted + w.deleted} of {w.said} missed, {w.inserted} wrongly written")
            for w in by_word(result)[:15]
        ],
        "Taken for": [
            (f"{said} → {written}", f"{times}") for said, written, times in confusions(result)[:15]
        ],
    }
    speakers = [utterance.speaker for utterance in utterances]
    if any(speakers):
        known = [
            (part.speaker, f"WER {100 * part.wer:.1f} % of {part.words} words")
            for part in by_speaker(result, speakers)[:15]
        ]
        unknown = [("unknown", f"{n} utterances")] if (n := speakers.count("")) else []
        rows = {"Speakers": known + unknown} | rows
    tables = "".join(
        f"<table><tr><th colspan=2>{escape(head)}</th></tr>"
        + "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in body)
        + "</table>"
        for head, body in rows.items()
    )
    return (
        f'<details><summary>Speakers, words, confusions</summary><div class="tables">{tables}</div></details>'
    )


def _filters(name: str) -> str:
    return "".join(
        f'<label><input type="radio" name="{name}" class="pick-{kind}"{" checked" * (kind == "all")}> {text}</label>'
        for kind, text in FILTERS
    )


def _filter_css(name: str) -> str:
    return "".join(
        f"#{name}:has(.pick-{kind}:checked) article:not(.has-{kind}) {{ display: none; }}\n"
        for kind, _ in FILTERS[1:]
    )
