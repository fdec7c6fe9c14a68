"""The vocabulary of a recogniser: the symbols of its outputs, and the conversion of texts to numbers and back.

Every recogniser stores its own: kdkit's letters (:data:`VOCABULARY`), or that of another library.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from kdkit.common.errors import ConfigError, TextError


@dataclass(frozen=True)
class Vocabulary(Sequence[str]):
    """The symbols in order of their numbers, and the roles of those that are not letters.

    ``blank``: number of CTC's blank. ``boundary``: number of the symbol between words; None where words are not
    separated. ``silent``: numbers of symbols that are never written, such as ``<s>``, ``</s>`` and ``<unk>``. A symbol
    may have several characters; texts are encoded with the longest that match.

    Raises :class:`ConfigError` for numbers without a symbol, and for a symbol that occurs twice.
    """

    symbols: tuple[str, ...]
    blank: int = 0
    boundary: int | None = 1
    silent: tuple[int, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "symbols", tuple(self.symbols))  # JSON gives lists
        object.__setattr__(self, "silent", tuple(sorted(self.silent)))
        named = (self.blank, *self.silent, *(() if self.boundary is None else (self.boundary,)))
        wrong = [n for n in named if type(n) is not int or not 0 <= n < len(self.symbols)]
        if wrong or len(set(named)) < len(named):
            raise ConfigError(
                f"blank {self.blank}, boundary {self.boundary} and silent {list(self.silent)} must be different "
                f"numbers of the {len(self.symbols)} symbols"
            )
        twice = [symbol for symbol, times in Counter(self.symbols).items() if times > 1]
        if twice:
            raise ConfigError(f"the vocabulary has {twice[0]!r} twice")

    def __len__(self) -> int:
        return len(self.symbols)

    def __getitem__(self, number: int) -> str:
        return self.symbols[number]

    @cached_property
    def letters(self) -> dict[str, int]:
        """{symbol: number} of the symbols that words are written with."""
        others = {self.blank, self.boundary, *self.silent}
        return {symbol: number for number, symbol in enumerate(self.symbols) if number not in others}

    @cached_property
    def _spelling(self) -> dict[str, int]:
        """{spelling: number}: the letters, and the lower case of those that occur only as capitals."""
        return {symbol.lower(): number for symbol, number in self.letters.items()} | self.letters

    @cached_property
    def is_upper(self) -> bool:
        """Whether all letters are capitals; then texts are decoded to lower case."""
        written = "".join(self.letters)
        return any(map(str.isupper, written)) and not any(
            c.islower() and len(c.upper()) == 1 for c in written
        )

    @cached_property
    def beyond_ascii(self) -> frozenset[str]:
        """The non-ASCII characters of the letters, in lower case."""
        return frozenset(c for c in "".join(self.letters).lower() if not c.isascii())

    @cached_property
    def _characters(self) -> frozenset[str]:
        return frozenset(symbol for symbol in self._spelling if len(symbol) == 1) | {" "}

    def outside(self, text: str) -> list[str]:
        """The characters of a text that the vocabulary has no symbol for, sorted."""
        if self._characters.issuperset(text):
            return []  # most texts
        return sorted(
            {symbol for word in _words(text) for symbol in self._spell(word) if isinstance(symbol, str)}
        )

    def encode(self, text: str, where: str = "text") -> list[int]:
        """A text as numbers: its letters, and the boundary, if there is one, between words.

        A letter that the vocabulary has in the other case only is taken in that. Raises :class:`TextError` that names
        ``where`` and every character outside the alphabet.
        """
        unknown = self.outside(text)
        if unknown:
            text = text if len(text) <= 80 else f"{text[:77]}..."
            raise TextError(
                f"{where}: characters outside the alphabet {unknown} in {text!r}; known are {self.known()}"
            )
        numbers: list[int] = []
        for word in _words(text):
            numbers += [self.boundary] if numbers and self.boundary is not None else []
            numbers += self._spell(word)
        return numbers

    def _spell(self, word: str) -> list[int | str]:
        """The numbers of the longest symbols that match a word, and the characters without a symbol."""
        spelled, at = [], 0
        while at < len(word):
            for size in range(min(self._longest, len(word) - at), 0, -1):
                part = word[at : at + size]
                number = self._spelling.get(part, self._spelling.get(part.lower()))
                if number is not None:
                    break
            spelled.append(part if number is None else number)
            at += size
        return spelled

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._spelling), default=1)

    def decode(self, numbers: Iterable[int]) -> str:
        """Numbers, repeats already merged, as words with single spaces; blanks and silent symbols are left out."""
        left_out = {self.blank, *self.silent}
        written = [" " if n == self.boundary else self.symbols[n] for n in numbers if n not in left_out]
        text = " ".join("".join(written).split())
        return text.lower() if self.is_upper else text

    def known(self) -> str:
        """The letters in short, for messages: "' a-z and space"."""
        runs: list[list[str]] = []
        for letter in sorted(letter for letter in self.letters if len(letter) == 1):
            if runs and ord(letter) == ord(runs[-1][-1]) + 1:
                runs[-1].append(letter)
            else:
                runs.append([letter])
        parts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else " ".join(run) for run in runs]
        shown = parts if len(parts) <= 20 else [*parts[:20], "..."]
        return " ".join(shown) + ("" if self.boundary is None else " and space")

    def to_meta(self) -> dict:
        """What a model's file keeps: the symbols, and the roles where they are not those of kdkit's letters."""
        roles = {"blank": self.blank, "boundary": self.boundary, "silent": list(self.silent)}
        usual = roles == {"blank": 0, "boundary": 1, "silent": []}
        return {"vocabulary": list(self.symbols)} | ({} if usual else {"vocabulary_roles": roles})

    @classmethod
    def from_meta(cls, meta: dict) -> Vocabulary:
        """What :meth:`to_meta` kept. Raises :class:`ConfigError` for anything else, a missing one included."""
        symbols, roles = meta.get("vocabulary"), meta.get("vocabulary_roles", {})
        try:
            if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
                raise TypeError
            return cls(tuple(symbols), **roles)
        except TypeError:
            raise ConfigError(
                "the vocabulary is no list of symbols with the numbers of blank and boundary"
            ) from None


def _words(text: str) -> list[str]:
    return unicodedata.normalize("NFC", text).split()


# LibriSpeech's letters in the order of torchaudio's wav2vec 2.0 bundles: blank, word boundary, letters by frequency
VOCABULARY = Vocabulary(("-", "|", *"etaonihsrdlumwcfgypbvk'xjqz"))


def alphabet(letters: str) -> Vocabulary:
    """The vocabulary of a recogniser of another language: blank, word boundary, and ``letters`` ("abc...zäöüß").

    Letters are lower case, accents and all; texts are cleaned by it (:mod:`kdkit.speech.transcripts`). Raises
    :class:`ConfigError` for none, for what is no letter (the apostrophe is one), and for a letter that occurs twice.
    """
    letters = unicodedata.normalize("NFC", letters)
    wrong = [c for c in letters if not (c.isalpha() or c == "'") or c != c.lower()]
    if wrong or not letters:
        shown = f"{wrong[0]!r} is none" if wrong else "there are none"
        raise ConfigError(f"alphabet {letters!r}: give its letters in lower case, without spaces; {shown}")
    return Vocabulary((*VOCABULARY[:2], *letters))


def frames_needed(numbers: list[int]) -> int:
    """The least number of frames of a CTC alignment: one for each number, one more between two equal ones."""
    return len(numbers) + sum(a == b for a, b in pairwise(numbers))
