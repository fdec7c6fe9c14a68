"""Values that come from outside, checked where they enter, so that the code behind can rely on them.

Single settings of models and checkpoints go through :func:`whole`, :func:`number`, :func:`flag` and :func:`choice`,
which return the value or raise an error that names the setting, its value and what is allowed. JSON files go through
:func:`read_json` with a schema (JSON Schema 2020-12, library jsonschema) that stands beside the reader of the format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from reprlib import Repr

from kdkit.common.errors import ConfigError

_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple = 2, 12, 12
_SHORT.maxstring = _SHORT.maxother = 60


def shown(value: object) -> str:
    """``repr(value)`` on one line, shortened: a damaged file can hold anything."""
    return " ".join(_SHORT.repr(value).split())


def whole(value: object, name: str, low: int, high: int) -> int:
    """Checks an integer from ``low`` to ``high``; :class:`ConfigError` for anything else, True and 2.0 included."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        raise ConfigError(f"{name} is {shown(value)}: a whole number from {low:,} to {high:,} is needed")
    return int(value)


def number(value: object, name: str, low: float, high: float) -> float:
    """Checks a finite number from ``low`` to ``high``; :class:`ConfigError` for anything else."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high:
        raise ConfigError(f"{name} is {shown(value)}: a number from {low:g} to {high:g} is needed")
    return value


def flag(value: object, name: str) -> bool:
    """Checks True or False; :class:`ConfigError` for anything else, 0, 1 and "false" included."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {shown(value)}: true or false is needed")
    return value


def choice(value: object, name: str, options: Sequence[str]) -> str:
    """Checks one of ``options``; :class:`ConfigError` that lists them for anything else."""
    if not isinstance(value, str) or value not in options:
        named = " or ".join(map(repr, options))
        raise ConfigError(f"{name} is {shown(value)}: choose {named}")
    return value


# --- JSON files ---------------------------------------------------------------------------------------------

LARGEST = 64 * 2**20  # bytes of a JSON file; a report with all its numbers has less than one megabyte

TEXT = {"type": "string", "maxLength": 1_000_000}
FLAG = {"type": "boolean"}
NUMBER = {"type": "number", "minimum": -1e300, "maximum": 1e300}
NOT_NEGATIVE = {"type": "number", "minimum": 0, "maximum": 1e300}
COUNT = {"type": "integer", "minimum": 0, "maximum": 10**18}
TIME = {"type": "string", "format": "iso-time"}  # ISO 8601
SCALAR = {"type": ["string", "number", "boolean", "null"]}


def one_of(values: Iterable[str]) -> dict:
    """A schema: one of these strings."""
    return {"enum": list(values)}


def maybe(schema: dict) -> dict:
    """A schema: ``null``, or ``schema``."""
    return {"anyOf": [{"type": "null"}, schema]}


def list_of(schema: dict, **bounds: int) -> dict:
    """A schema: a list whose items fit ``schema``; ``bounds`` are ``minItems`` and ``maxItems``."""
    return {"type": "array", "items": schema, **bounds}


def table_of(schema: dict) -> dict:
    """A schema: an object with any names, whose values fit ``schema``."""
    return {"type": "object", "additionalProperties": schema}


def fields(required: dict[str, dict], optional: dict[str, dict] | None = None, others: bool = True) -> dict:
    """A schema: an object with these fields; ``others``: further ones are allowed."""
    properties = {**required, **(optional or {})}
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": others,
    }


def read_json(path: Path | str, schema: dict, advice: str = "") -> object:
    """The content of a JSON file, checked against ``schema``.

    Raises :class:`ConfigError`, ending with ``advice``, for a file that is missing, larger than 64 MB, not UTF-8, not
    JSON (NaN and Infinity are rejected), or that violates the schema; the message names the place in the file.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise ConfigError(_sentence(f"{path}: no such file", advice))
        if path.stat().st_size > LARGEST:
            raise ConfigError(
                _sentence(f"{path}: larger than {LARGEST >> 20} MB, which no such file is", advice)
            )
        value = parse_json(path.read_text(encoding="utf-8-sig"))  # editors of Windows begin with a mark
    except (OSError, ValueError) as error:
        raise ConfigError(_sentence(f"{path}: cannot be read as JSON ({error})", advice)) from error
    problem = misfit(value, schema)
    if problem:
        raise ConfigError(_sentence(f"{path}: {problem}", advice))
    return value


def parse_json(text: str) -> object:
    """``json.loads`` that raises ValueError for all invalid input, also deep nesting, NaN and lone surrogates."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in text:  # "\ud800" is a lone surrogate: it cannot be printed or written
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def misfit(value: object, schema: dict) -> str:
    """The most important violation of ``schema`` with its place, such as "notebooks[2].seconds: 'x' is not of type
    'number'"; "" if there is none.
    """
    from jsonschema.exceptions import best_match

    error = best_match(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value))
    if error is None:
        return ""
    place = error.json_path.removeprefix("$").removeprefix(".")
    said = error.message if len(error.message) <= 160 else f"{error.message[:60]} ... {error.message[-80:]}"
    return f"{place}: {said}" if place else said


@lru_cache
def _validator(schema: str):
    from jsonschema import Draft202012Validator, FormatChecker

    checker = FormatChecker(formats=())
    checker.checks("iso-time", ValueError)(_is_time)
    return Draft202012Validator(json.loads(schema), format_checker=checker)


def _is_time(value: object) -> bool:
    return not isinstance(value, str) or bool(datetime.fromisoformat(value))


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _sentence(said: str, advice: str) -> str:
    said = said.replace("\n", " ")
    return f"{said}; {advice}" if advice else said
