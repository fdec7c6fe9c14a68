"""Text normalisation: the one rule by which transcripts, references and text for language models are cleaned.

``kdkit prepare``, ``finetune``, ``evaluate``, ``lm`` and ``align`` all use it, so a word is the same everywhere. In
this order:

1. HTML entities are decoded (``&amp;`` is &); control characters become spaces.
2. Accents are removed from Latin letters, unless the recogniser's vocabulary has them (``prepare`` keeps them:
   :func:`all_letters`), and ligatures are decomposed (é is e, ﬁ is fi); letters of other scripts keep their marks.
   Curly apostrophes become straight, capitals lower case.
3. Tags are dropped and counted: ``<COMMA>``, ``[laughter]``, ``{noise}``, signs such as ♪. A tag for words that were
   not transcribed (``<unk>``, ``[inaudible]``) becomes the word ``<unk>``.
4. With ``numbers=True``, numbers and signs are spelled out (:mod:`kdkit.speech.spelling`).
5. Punctuation becomes a space or is dropped; apostrophes between or next to letters are kept. White space becomes
   single spaces.

What is said, but cannot be written with the vocabulary (kdkit's own: a to z and the apostrophe), is kept: digits (and
marks between them), signs such as & % $, other letters. :func:`outside` finds it. How "1999" or "AT&T" was read is
unknown: fine-tuning leaves such texts out, a language model has ``<unk>`` for the word, an evaluation counts an error.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from html import unescape

from kdkit.common.wording import counted
from kdkit.speech.manifest import Utterance
from kdkit.speech.text import VOCABULARY, Vocabulary

UNKNOWN = "<unk>"  # an unknown word, in transcripts and in language models

_WORD = "[a-z]+(?:'[a-z]+)*"
_CLEAN = re.compile(f"(?:{_WORD}(?: {_WORD})*)?")  # most text: nothing to do
_APOSTROPHES = str.maketrans(dict.fromkeys("‘’‛ʼ＇`´", "'"))
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.IGNORECASE)
_TAG = re.compile(r"</?[^\W\d_][^<>]{0,60}>|\[[^\[\]]{1,60}\]|\{[^{}]{1,60}\}")
_NESTED = 8  # deepest nesting of tags
_MISSING = r"unk|unknown|unintelligible|inaudible|indistinct|incomprehensible|xxx?|\?+"
_MISSING_TAG = re.compile(rf"[<\[({{]\s*(?:{_MISSING})\s*[>\])}}]", re.IGNORECASE)
_MISSING_MARK = "\0"  # stands for UNKNOWN while the text is cleaned
_SAID = "&%‰@#*§°�"  # signs that are read aloud, or mark missing text
_SEPARATORS = re.compile(r"\||(?<!\d)[.,:/⁄]|[.,:/⁄](?!\d)")  # marks within numbers stay
_JOINERS = "\u200c\u200d"  # part of the spelling in Persian and in Indian scripts


@dataclass(frozen=True)
class Cleaned:
    """A cleaned text, and the tags and signs that were dropped, in lower case."""

    text: str
    dropped: tuple[str, ...] = ()


def clean(text: str, numbers: bool = False, vocabulary: Vocabulary = VOCABULARY) -> str:
    """A cleaned text: lower case, no punctuation but apostrophes, single spaces; accented letters in ``vocabulary`` are
    kept.
    """
    return cleaned(text, numbers, vocabulary).text


def cleaned(text: str, numbers: bool = False, vocabulary: Vocabulary = VOCABULARY) -> Cleaned:
    """:func:`clean`, and what was dropped."""
    plain = " ".join(text.lower().split())
    if _CLEAN.fullmatch(plain):
        return Cleaned(plain)
    dropped: list[str] = []
    text = _without_tags(_plain_letters(_decoded(text, vocabulary.beyond_ascii)), dropped).lower()
    if numbers:
        from kdkit.speech.spelling import spell  # here: its library takes two seconds to load

        text = spell(text)
    text = _SEPARATORS.sub(" ", text).translate(_PUNCTUATION)
    text = re.sub(r"(?<!\w)'+(?!\w)|'{2,}", " ", text)
    words = (_unquoted(word) for word in unicodedata.normalize("NFC", text).split())
    text = " ".join(word for word in words if word)
    return Cleaned(text.replace(_MISSING_MARK, UNKNOWN), tuple(dropped))


def outside(text: str, vocabulary: Vocabulary = VOCABULARY) -> str:
    """The characters of a cleaned text that the recogniser has no symbol for, sorted; "" if it has all."""
    return "".join(vocabulary.outside(text))


@cache
def all_letters() -> Vocabulary:
    """kdkit's letters and all Latin letters with accents: those that ``kdkit prepare`` keeps.

    Accents that a recogniser does not have are removed when the manifest is read. Removed in the manifest, they would
    make every umlaut of a German recogniser an error.
    """
    latin = map(chr, range(0xC0, 0x1F00))
    accented = [
        c for c in latin if c == c.lower() and unicodedata.normalize("NFD", c)[0] in VOCABULARY.letters
    ]
    return Vocabulary((*VOCABULARY, *accented))


@dataclass
class Cleaning:
    """Cleans texts and counts the changes: numbers of texts, in ``dropped`` of tags and signs."""

    vocabulary: Vocabulary = VOCABULARY
    numbers: bool = False  # whether they are spelled out
    texts: int = 0
    empty: int = 0
    changed: int = 0  # in more than capital letters and spaces
    left_out: int = 0  # with characters outside the alphabet
    outside: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, text: str) -> str:
        """The cleaned text, counted."""
        found = cleaned(text, self.numbers, self.vocabulary)
        strange = outside(found.text, self.vocabulary)
        self.texts += 1
        self.empty += not found.text
        self.changed += found.text != " ".join(text.lower().split())
        self.left_out += bool(strange)
        self.outside.update(strange)
        self.dropped.update(found.dropped)
        return found.text

    @property
    def tags(self) -> str:
        """The tags and signs that were dropped, as a sentence; "" for none."""
        if not self.dropped:
            return ""
        return f"{counted(self.dropped.total(), 'tag or sign', 'tags and signs')} dropped: {counts(self.dropped)}"


def counts(counter: Counter[str], most: int = 12) -> str:
    """ "'7' 12 times, '&' once" of the most frequent."""
    shown = ", ".join(f"{c!r} {'once' if n == 1 else f'{n} times'}" for c, n in counter.most_common(most))
    return shown + (f" and {len(counter) - most} more" if len(counter) > most else "")


def scorable(
    utterances: Sequence[Utterance], name: str = "the test set", vocabulary: Vocabulary = VOCABULARY
) -> tuple[list[Utterance], list[str]]:
    """The utterances that have a text, with cleaned texts, and notes on what was left out or changed.

    Without a reference, nothing that is recognised can be counted as an error.
    """
    cleaning = Cleaning(vocabulary)
    kept = [replace(u, text=text) for u in utterances if (text := cleaning.add(u.text))]
    notes = []
    if cleaning.empty:
        notes.append(
            f"{name}: {cleaning.empty} of {counted(cleaning.texts, 'utterance')} left out, for want of a text"
        )
    if cleaning.changed - cleaning.empty > 0:
        notes.append(
            f"{name}: {cleaning.changed} of {counted(cleaning.texts, 'text')} cleaned as kdkit prepare does "
            "(punctuation, accents, tags)"
        )
    if cleaning.tags:
        notes.append(f"{name}: {cleaning.tags}")
    if cleaning.left_out:
        notes.append(
            f"{name}: {counted(cleaning.left_out, 'text')} with characters outside the alphabet "
            f"({counts(cleaning.outside)}): words that hold them count as errors, whatever is heard; kdkit prepare "
            "--spell-numbers spells numbers out"
        )
    return kept, notes


def _decoded(text: str, kept: frozenset[str]) -> str:
    """Decodes entities, and decomposes Latin letters unless they are in ``kept``."""
    while True:
        found = _ENTITY.sub(lambda match: unescape(match[0]), text) if "&" in text else text
        if not found.isascii():
            found = unicodedata.normalize("NFC", found) if kept else found
            found = "".join(c if c.lower() in kept else _apart(c) for c in found)
        if found == text:
            return text.translate(_CONTROLS)
        text = found


@lru_cache(maxsize=10_000)
def _apart(c: str) -> str:
    """Decomposes é to e and an accent, ﬁ to fi, ² to 2; but not が, น้ำ or ™."""
    if c.isascii() or c in "™℠":
        return c
    found = unicodedata.normalize("NFKD", c)
    return found if _role(found[0]) == "latin" else c


@lru_cache(maxsize=10_000)
def _role(c: str) -> str:
    """ "mark" for combining marks, "other" for letters of other scripts, "latin" for the rest."""
    if c in _JOINERS or unicodedata.category(c) in ("Mn", "Me"):
        return "mark"
    if unicodedata.category(c) == "Mc":
        return "other"
    return "latin" if not c.isalpha() or unicodedata.name(c, "").startswith("LATIN") else "other"


def _without_tags(text: str, dropped: list[str]) -> str:
    """The text without tags, which are added to ``dropped``; ``_MISSING_MARK`` where words are missing."""
    text = _MISSING_TAG.sub(f" {_MISSING_MARK} ", text)
    for _ in range(_NESTED):  # tags within tags
        tags = _TAG.findall(text)
        dropped += map(str.lower, tags)
        text = _TAG.sub(" ", text)
        if not tags:
            break
    else:
        text = text.translate(dict.fromkeys(map(ord, "<>[]{}"), " "))
    if not text.isascii():
        dropped += [c for c in text if unicodedata.category(c) == "So" and c not in _SAID]
    return text  # signs go with the punctuation


def _plain_letters(text: str) -> str:
    """Text without the marks and joiners that follow Latin letters."""
    text = text.translate(_APOSTROPHES)
    if text.isascii():
        return text
    kept, latin = [], True
    for c in text:
        role = _role(c)
        if role == "mark" and latin:
            continue
        latin = latin if role == "mark" else role == "latin"
        kept.append(c)
    return "".join(kept)


class _Table(dict):
    """For str.translate: maps characters by their Unicode category, and caches the result."""

    def __init__(self, kinds: dict[str, str], keep: str):
        super().__init__((ord(c), c) for c in keep)
        self.kinds = kinds

    def __missing__(self, code: int) -> str:
        self[code] = self.kinds.get(unicodedata.category(chr(code)), chr(code))
        return self[code]


_CONTROLS = _Table({"Cc": " ", "Cf": ""}, _JOINERS)
_CONTROLS[0x200B] = " "  # zero width, but a space
_PUNCTUATION = _Table(
    dict.fromkeys(("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sk", "So"), " "),
    f"'.,:/⁄{_MISSING_MARK}{_SAID}",
)


def _unquoted(word: str) -> str:
    """'word' in single quotes without them; 'tis and the dogs' keep theirs."""
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] == "'" else word
