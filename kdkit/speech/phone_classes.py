"""Classes of speech sounds, by their symbols in the International Phonetic Alphabet."""

from __future__ import annotations

_CLASSES = (  # of the International Phonetic Alphabet, by the first symbol
    ("stop", "pbtdkɡgɾʔ"),
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
