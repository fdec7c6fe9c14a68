"""Transcripts as corpora write them, to the letters of the recogniser (:mod:`kdkit.text`).

The rule, in this order:

1. accents and ligatures are taken apart and dropped (é -> e, ﬁ -> fi); curly apostrophes become straight ones;
2. upper case becomes lower case;
3. with ``numbers=True``, whole numbers are spelled out as cardinals (42 -> forty two), & and % as words; without
   it digits stay, and are reported as outside the vocabulary: nobody but the speaker knows how "1999" was read;
4. an apostrophe that is not between or beside letters goes, as do all other punctuation marks; hyphens, dashes,
   slashes and underscores separate words;
5. runs of white space become one space.

Letters of other scripts stay as they are: :func:`outside` finds them, and fine-tuning leaves such utterances out.
"""

from __future__ import annotations

import re
import unicodedata

from kdkit.text import BLANK, VOCABULARY

_APOSTROPHES = str.maketrans(dict.fromkeys("‘’‛ʼ＇`´", "'"))
_ALPHABET = {symbol for i, symbol in enumerate(VOCABULARY) if i != BLANK and symbol != "|"} | {" "}
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def clean(text: str, numbers: bool = False) -> str:
    """A transcript in the kit's form: lower case, no punctuation but apostrophes, single spaces."""
    text = text.translate(_APOSTROPHES)
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).lower()
    if numbers:
        text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
        text = text.replace("&", " and ").replace("%", " percent ")
        text = re.sub(r"(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)", " ", text)  # mp3 -> mp 3
        text = re.sub(r"[0-9]+", lambda match: spelled(match[0]), text)
    text = re.sub(r"[-‐‑‒–—―/_|]", " ", text)
    text = "".join(c if c == "'" or not unicodedata.category(c).startswith(("P", "S")) else " " for c in text)
    text = re.sub(r"(?<!\w)'+(?!\w)|'{2,}", " ", text)
    words = (_unquoted(word) for word in text.split())
    return " ".join(word for word in words if word)


def outside(text: str) -> str:
    """The characters of a cleaned text that the recogniser has no symbol for, sorted; "" if it has all."""
    return "".join(sorted(set(text) - _ALPHABET))


def spelled(digits: str) -> str:
    """A whole number as an English cardinal; one of more than six digits, or with a leading 0, digit by digit."""
    if len(digits) > 6 or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(_ONES[int(digit)] for digit in digits)
    number = int(digits)
    if number >= 1000:
        rest = f" {spelled(str(number % 1000))}" if number % 1000 else ""
        return f"{spelled(str(number // 1000))} thousand{rest}"
    if number >= 100:
        rest = f" {spelled(str(number % 100))}" if number % 100 else ""
        return f"{_ONES[number // 100]} hundred{rest}"
    if number >= 20:
        return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")
    return _ONES[number]


def _unquoted(word: str) -> str:
    """'word' in single quotes without them; 'tis and the dogs' keep theirs."""
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] == "'" else word
