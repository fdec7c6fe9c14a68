"""Values that come from outside, held to what they may be: each check gives the value back, or says what is wrong.

Settings of models and of foreign checkpoints go through these. The message names the setting, what it is and what it
may be, in one line; values are shortened, for a damaged file can hold anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from reprlib import Repr

from kdkit.common.errors import ConfigError

_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple = 2, 12, 12
_SHORT.maxstring = _SHORT.maxother = 60


def shown(value: object) -> str:
    """``repr(value)`` on one line, cut short where it is long."""
    return " ".join(_SHORT.repr(value).split())


def whole(value: object, name: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``; raises :class:`ConfigError` for anything else, True and 2.0 included."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        raise ConfigError(f"{name} is {shown(value)}: a whole number from {low:,} to {high:,} is needed")
    return int(value)


def number(value: object, name: str, low: float, high: float) -> float:
    """A finite number from ``low`` to ``high``; raises :class:`ConfigError` for anything else."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high:
        raise ConfigError(f"{name} is {shown(value)}: a number from {low:g} to {high:g} is needed")
    return value


def flag(value: object, name: str) -> bool:
    """True or False; raises :class:`ConfigError` for anything else, 0, 1 and "false" included."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {shown(value)}: true or false is needed")
    return value


def choice(value: object, name: str, options: Sequence[str]) -> str:
    """One of ``options``; raises :class:`ConfigError` that lists them."""
    if not isinstance(value, str) or value not in options:
        named = " or ".join(map(repr, options))
        raise ConfigError(f"{name} is {shown(value)}: choose {named}")
    return value
