"""What a notebook leaves in its run folder, as a schema: numbers with their sources, systems, items, what was used."""

from __future__ import annotations

import os
from pathlib import Path

from kdkit.common.statistics import VERDICTS
from kdkit.common.validation import (
    COUNT,
    FLAG,
    NOT_NEGATIVE,
    NUMBER,
    TEXT,
    fields,
    list_of,
    maybe,
    one_of,
    read_json,
    table_of,
)

# Sources of a model or a number, as the report words them.
SOURCES = {
    "run": "trained in this run",
    "shipped": "made before this run" if os.environ.get("KDKIT_ASSETS") else "shipped with the kit",
    "published": "published",
}
OUTCOMES = (*VERDICTS, "seen", "not seen")
ROLES = ("teacher", "distilled", "scratch", "baseline")


# What a notebook leaves (see read_results), as a schema.
_INTERVAL = list_of(NUMBER, minItems=2, maxItems=2)
METRIC = fields(
    {
        "value": {"type": ["number", "string", "boolean"], "minimum": -1e300, "maximum": 1e300},
        "source": one_of(SOURCES),
    },
    {"interval": _INTERVAL, "unit": TEXT, "note": TEXT, "timing": FLAG}
    | {"verdict": one_of(VERDICTS), "seeds": list_of(NUMBER)},
)
_DIFFERENCES = table_of(fields({"value": NUMBER, "verdict": one_of(VERDICTS)}, {"interval": _INTERVAL}))
_SCORES = table_of(fields({"value": NOT_NEGATIVE}, {"interval": _INTERVAL}))
SYSTEM = fields(
    {
        "name": TEXT,
        "role": one_of(ROLES),
        "labels": TEXT,
        "source": one_of(SOURCES),
        "wer": _SCORES,
        "cer": _SCORES,
    }
    | {"parameters": maybe(COUNT), "speed": maybe(NOT_NEGATIVE), "note": TEXT},
    {"against_scratch": _DIFFERENCES},
)
_ITEMS = {
    "figure": {"caption": TEXT, "alt": TEXT, "file": {"pattern": r"^figures/[\w.-]+/[\w.-]+\.png$"}},
    "audio": {"caption": TEXT, "file": {"pattern": r"^audio/[\w.-]+/[\w.-]+\.wav$"}},
    "page": {"caption": TEXT, "file": {"pattern": r"^pages/[\w.-]+/[\w.-]+\.html$"}},
    "table": {"caption": TEXT, "columns": list_of(TEXT), "rows": list_of(list_of(TEXT))},
    "verdict": {"outcome": one_of(OUTCOMES), "text": TEXT},
    "text": {"text": TEXT},
}
_ITEM = {"type": "object", "required": ["kind"], "properties": {"kind": one_of(_ITEMS)}} | {
    "allOf": [
        {"if": {"properties": {"kind": {"const": kind}}}, "then": fields({"name": TEXT} | content)}
        for kind, content in _ITEMS.items()
    ]
}
SPEECH = fields({"sha256": TEXT, "utterances": COUNT, "minutes": NOT_NEGATIVE})
RECORD = fields(
    {"title": TEXT, "metrics": table_of(METRIC), "systems": list_of(SYSTEM), "items": list_of(_ITEM)},
    {"data": table_of(SPEECH), "models": table_of(TEXT), "world": TEXT},
)


def record_path(out: Path | str, notebook: str) -> Path:
    return Path(out) / "metrics" / f"{notebook}.json"


def read_results(out: Path | str, notebook: str) -> dict | None:
    """The record that ``notebook`` left in run folder ``out``, or None where it has not run there.

    Keys: notebook, title, profile, seed, metrics {name: {value, source, interval?, unit?, timing?, note?,
    verdict?, seeds?}}, systems [{name, role, labels, source, wer {split: {value, interval?}}, cer, parameters, speed,
    note, against_scratch?}], items in order, data and models (what was used).
    Raises :class:`ConfigError` when the file is damaged or holds something else.
    """
    path = record_path(out, notebook)
    if not path.exists():
        return None
    return read_json(path, RECORD, "remove it and run the notebook again")
