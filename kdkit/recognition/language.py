"""Text for a language model, and the model's file: what ``kdkit lm`` does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kdkit.common.errors import ConfigError, TextError
from kdkit.recognition.ngram import BOUNDARY
from kdkit.speech.manifest import read_manifest
from kdkit.speech.text import VOCABULARY, Vocabulary
from kdkit.speech.transcripts import UNKNOWN, Cleaning, outside

UNITS = ("word", "letter")
LONGEST_WORD = 1000  # letters; a decoder's trie is built by recursion


def sentences_of(
    paths: Iterable[str | Path], unit: str = "word", cleaning: Cleaning | None = None
) -> Iterator[list[str]]:
    """Sentences of text files (a line each) and of manifests (``.jsonl``: their transcripts), as lists of units.

    ``cleaning`` says what letters there are and whether numbers are spelled out, and counts what the kit's rule for
    text dropped on the way.
    Raises :class:`TextError` for a file that is missing or not UTF-8, :class:`ConfigError` for another unit.
    """
    if unit not in UNITS:
        raise ConfigError(f"unit is {unit!r}: choose one of {', '.join(UNITS)}")
    for path in map(Path, paths):
        for line in _lines(path):
            words = words_of(line, cleaning)
            if words:
                yield words if unit == "word" else letters_of(words)


def lexicon(path: str | Path, vocabulary: Vocabulary = VOCABULARY) -> tuple[str, ...]:
    """The different words of a text file or manifest that ``vocabulary`` can write, sorted.

    Raises :class:`TextError`, naming the file, when there is none, or one of over 1,000 letters.
    """
    sentences = sentences_of([path], cleaning=Cleaning(vocabulary))
    words = sorted({word for sentence in sentences for word in sentence} - {UNKNOWN})
    if not words:
        raise TextError(f"{path}: not one word for a lexicon in it; give a list of words, or any text")
    longest = max(words, key=len)
    if len(longest) > LONGEST_WORD:
        raise TextError(
            f"{path}: a word of {len(longest):,} letters ({longest[:30]}...): is it a list of words?"
        )
    return tuple(words)


def words_of(line: str, cleaning: Cleaning | None = None) -> list[str]:
    """The words of a line by the kit's rule for text (:mod:`kdkit.speech.transcripts`).

    ``cleaning`` knows the vocabulary, kdkit's letters by default. A word that cannot be written with it, as it has a
    digit, a sign or another letter, becomes ``<unk>``.
    """
    cleaning = cleaning or Cleaning()
    return [UNKNOWN if outside(word, cleaning.vocabulary) else word for word in cleaning.add(line).split()]


def letters_of(words: Sequence[str]) -> list[str]:
    """Words letter by letter with the boundary between them, for a model of letters; ``<unk>`` stays one unit."""
    letters: list[str] = []
    for i, word in enumerate(words):
        letters += [BOUNDARY] if i else []
        letters += [word] if word == UNKNOWN else word
    return letters


def _lines(path: Path) -> Iterator[str]:
    if path.suffix == ".jsonl":
        yield from (utterance.text for utterance in read_manifest(path))
        return
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is a folder or a pipe, not a file")
        with open(path, encoding="utf-8-sig") as file:  # by lines: such texts may be large
            yield from file
    except FileNotFoundError:
        raise TextError(f"{path}: no such text file; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(
            f"{path}: cannot be read as UTF-8 text ({error}); give plain text, one sentence a line"
        ) from error
