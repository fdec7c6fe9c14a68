"""Characters of the recogniser: LibriSpeech's letters in the order of torchaudio's wav2vec 2.0 bundles."""

from __future__ import annotations

from itertools import pairwise

from kdkit.errors import TextError

VOCABULARY = ("-", "|", *"etaonihsrdlumwcfgypbvk'xjqz")  # blank, word boundary, letters by frequency
BLANK = 0
BOUNDARY = VOCABULARY.index("|")
_INDEX = {symbol: i for i, symbol in enumerate(VOCABULARY)}


def encode(text: str, where: str = "text") -> list[int]:
    """Lower-cased text to character ids, words separated by the boundary ``|``.

    Raises :class:`TextError` that names ``where`` and every character outside the alphabet.
    """
    symbols = "|".join(text.lower().split())
    unknown = sorted({c for c in symbols if c not in _INDEX or c == VOCABULARY[BLANK]})
    if unknown:
        text = text if len(text) <= 80 else f"{text[:77]}..."
        raise TextError(
            f"{where}: characters outside the alphabet {unknown} in {text!r}; known are a to z, apostrophe and space"
        )
    return [_INDEX[c] for c in symbols]


def decode(ids: list[int]) -> str:
    """Character ids, blanks already removed, to words."""
    return " ".join("".join(VOCABULARY[i] for i in ids).replace("|", " ").split())


def frames_needed(ids: list[int]) -> int:
    """Frames that a CTC alignment of character ids takes at least: one each, one more between two equal ones."""
    return len(ids) + sum(a == b for a, b in pairwise(ids))
