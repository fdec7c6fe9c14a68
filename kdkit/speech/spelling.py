"""Numbers and signs as English words, as an American reads them: what ``--spell-numbers`` does.

42       forty two                  $5        five dollars           5 %   five percent
21st     twenty first               $5.50     five dollars and fifty cents
3.5      three point five           $3.5 million   three point five million dollars
1990s    nineteen nineties          10:30     ten thirty             AT&T  at and t

The words are those of the library inflect. Numbers of more than six digits without commas, and those that begin with 0,
are read digit by digit. Fractions and dates with slashes stay as they are, for nobody can tell them apart.
"""

from __future__ import annotations

import re
from functools import lru_cache

import inflect

_ENGINE = inflect.engine()
_COINS = {  # one and many of each, and of its hundredth
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "", ""),
}
_LONGEST = 15  # digits: beyond quadrillions nobody says a number but digit by digit
_SIGNS = {"&": "and", "%": "percent", "+": "plus", "=": "equals", "@": "at", "°": "degrees"}
_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)*)"  # 1,200.5, 42, 3.5, 1.2.3
_MONEY = re.compile(rf"([$€£¥]) ?({_NUMBER})( (?:hundred|thousand|million|billion|trillion)\b)?")
_MONEY_AFTER = re.compile(rf"(?<![0-9.,])({_NUMBER}) ?([$€£¥])")
_SLASHED = re.compile(r"[0-9]+(?:[/⁄][0-9]+)+")
_DECADE = re.compile(r"(?<![\w.])'?([0-9]0|[0-9]{2}[0-9]0)'?s\b")
_ORDINAL = re.compile(r"(?<![0-9.,])([0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:st|nd|rd|th)\b")
_MINUS = re.compile(r"(?<!\w)[-−](?=[0-9])")


def spell(text: str) -> str:
    """A lower-case text with its numbers and signs in words, and spaces around them."""
    parts, end = [], 0
    for match in _SLASHED.finditer(text):
        parts += [_plain(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, _plain(text[end:])])


@lru_cache(maxsize=10_000)
def cardinal(digits: str) -> str:
    """A whole number in words, without hyphens and commas; one of more than 15 digits digit by digit."""
    if len(digits) > _LONGEST:
        return " ".join(map(cardinal, digits))
    return _words(_ENGINE.number_to_words(digits, andword=""))


def spelled(digits: str) -> str:
    """A whole number as it is read: one of more than six digits, or with a leading 0, digit by digit."""
    if len(digits) > 6 or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(map(cardinal, digits))
    return cardinal(digits)


def _plain(text: str) -> str:
    text = _MINUS.sub(" minus ", text)
    text = _MONEY.sub(lambda match: _money(match[1], match[2], match[3] or ""), text)
    text = _MONEY_AFTER.sub(lambda match: _money(match[2], match[1], ""), text)
    text = _DECADE.sub(lambda match: f" {_decade(match[1])} ", text)
    text = _ORDINAL.sub(
        lambda match: f" {_words(_ENGINE.ordinal(cardinal(match[1].replace(',', ''))))} ", text
    )
    text = re.sub(rf"({_NUMBER})('s\b)?", lambda match: f" {_number(match[1])}{match[2] or ''} ", text)
    for sign, word in _SIGNS.items():
        text = text.replace(sign, f" {word} ")
    return text


def _number(digits: str) -> str:
    whole, *fractions = digits.split(".")
    read = cardinal(whole.replace(",", "")) if "," in whole else spelled(whole)
    return " point ".join([read, *(" ".join(map(cardinal, part)) for part in fractions)])


def _money(sign: str, digits: str, scale: str) -> str:
    one, many, *small = _COINS[sign]
    whole, _, cents = digits.replace(",", "").partition(".")
    if scale or not small[0] or not re.fullmatch("[0-9]{2}", cents):
        return f" {_number(digits)}{scale} {one if digits == '1' and not scale else many} "
    amounts = [(whole.lstrip("0"), one, many), (cents.lstrip("0"), *small)]
    parts = [f"{cardinal(n)} {one if n == '1' else many}" for n, one, many in amounts if n]
    return f" {' and '.join(parts) or f'zero {many}'} "


def _decade(digits: str) -> str:
    """1990 as nineteen nineties, 1900 as nineteen hundreds, 2000 as two thousands, 90 as nineties."""
    century, rest = digits[:-2], digits[-2:]
    if rest != "00":
        words = [cardinal(century)] if century else []
        return " ".join([*words, _ENGINE.plural(cardinal(rest))])
    if century[-1:] == "0" or not century:
        return _ENGINE.plural(cardinal(digits))
    return f"{cardinal(century)} hundreds"


def _words(text: str) -> str:
    return " ".join(re.sub("[-,]", " ", text).split())
