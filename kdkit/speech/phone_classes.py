"""Classes of speech sounds, by their symbols in the International Phonetic Alphabet."""

from __future__ import annotations

from collections.abc import Sequence

_CLASSES = (  # by the first symbol; affricates begin like stops
    ("stop", "pbtdkɡgɾʔ"),
    ("affricate", ""),
    ("fricative", "fvθðszʃʒhxç"),
    ("nasal", "mnŋɲ"),
    ("approximant", "lɹrjwʍɫ"),
    ("vowel", "iɪyeɛæaɑɒɔoʊuʉʌəɐɜɚɝᵻ"),
)


def phone_class(phone: str) -> str:
    """Stop, affricate, fricative, nasal, approximant or vowel; "other" for anything else."""
    if phone in ("tʃ", "dʒ"):
        return "affricate"
    return next((name for name, symbols in _CLASSES if phone and phone[0] in symbols), "other")


def by_class(phones: Sequence[str]) -> list[int]:
    """Places of ``phones`` in an order in which those of a class stand together, stops first and vowels last."""
    order = [*(name for name, _ in _CLASSES), "other"]
    return sorted(range(len(phones)), key=lambda i: (order.index(phone_class(phones[i])), phones[i]))
