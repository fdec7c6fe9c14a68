"""One inventory of phones for every accent.

eSpeak writes stress and length marks, and its accents use different vowel symbols for the same sound class. A
probe trained on the raw symbols would make half of its errors on names, so `normalise` maps everything onto
the symbols of the main accent (General American, "en-us"):

* stress and length marks go: ˈiː -> i; the happy vowel joins FLEECE, the weak vowels ᵻ and ɐ join ɪ and ə;
* both r-coloured central vowels (NURSE ɜː and LETTER ɚ) are ɚ; START, NORTH, SQUARE and NEAR keep a symbol
  each (ɑɹ, ɔɹ, ɛɹ, ɪɹ: eSpeak gives one start time for vowel and r together), CURE joins NORTH, FIRE joins
  PRICE;
* syllabic l (əl, one event) is l; trilled r is ɹ; pauses are "".
"""

from __future__ import annotations

from kdkit.common.errors import KdkitError

SILENCE = ""

PHONES = (
    SILENCE,
    "p", "b", "t", "d", "k", "ɡ", "ɾ", "tʃ", "dʒ",  # stops, flap, affricates
    "f", "v", "θ", "ð", "s", "z", "ʃ", "ʒ", "h",  # fricatives
    "m", "n", "ŋ", "l", "ɹ", "j", "w",  # sonorants
    "i", "ɪ", "ɛ", "æ", "ɑ", "ɔ", "ʊ", "u", "ʌ", "ə", "ɚ",  # vowels
    "eɪ", "aɪ", "ɔɪ", "aʊ", "oʊ", "ɑɹ", "ɔɹ", "ɛɹ", "ɪɹ",  # diphthongs, r-coloured vowels
)  # fmt: skip
"""Every symbol that `normalise` returns; "" is silence."""

_MARKS = str.maketrans("", "", "ˈˌː:̩̪")

# eSpeak symbol without marks -> ours, where they differ
_SYMBOLS = {
    "_": "", "ᵻ": "ɪ", "ɐ": "ə", "ɜ": "ɚ", "əl": "l", "aɪə": "aɪ", "aɪɚ": "aɪ", "aʊɚ": "aʊ", "ʊɹ": "ɔɹ",
    "oɹ": "ɔɹ", "iə": "ɪɹ", "iɹ": "ɪɹ", "ʔ": "t",
    # British, Scottish, Caribbean and New York symbols
    "a": "æ", "ɒ": "ɑ", "aa": "ɑ", "əʊ": "oʊ", "eə": "ɛɹ", "ʊə": "ɔɹ", "ɔə": "ɔɹ", "oə": "ɔɹ",
    "ɑə": "ɑɹ", "ɛə": "æ", "r": "ɹ", "e": "eɪ", "o": "oʊ", "ʉ": "u", "ʌʉ": "aʊ", "ʉɹ": "ɔɹ",
    "ʌɹ": "ɚ", "əɹ": "ɚ", "əɪ": "ɚ", "ʍ": "w", "ʲ": "j", "æʊ": "aʊ", "ei": "i", "oɪ": "ɔɪ",
    "ʌʊ": "oʊ", "əu": "u",
}  # fmt: skip

_KNOWN = frozenset(PHONES)


def normalise(symbol: str) -> str:
    """eSpeak's IPA for one phone -> one of PHONES. Raises KdkitError for a symbol not in the table."""
    if symbol == "t̪":  # Caribbean dental stop for TH: the mark is the difference
        return "θ"
    plain = symbol.translate(_MARKS)
    plain = _SYMBOLS.get(plain, plain)
    if plain not in _KNOWN:
        raise KdkitError(
            f"eSpeak phone {symbol!r} is not in the table of kdkit/speech/corpora/synthetic/phones.py: add it there"
        )
    return plain
