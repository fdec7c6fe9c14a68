"""Is a run as good as an earlier one? For continuous integration: what differs by more than a tolerance is named.

A number passes when it is equal, when both runs have intervals and these overlap, or when it differs by no more than
``absolute`` + ``relative`` x the earlier value. Error rates of recognisers may fall as far as they like. Any other
number must not move either way: whether more is better is not known here, and an unexpected gain is a change that
somebody should look at. A number, a recogniser or a notebook that is missing fails; new ones pass. Verdicts follow from
numbers and are left out. So are times and speeds, but for ``time``: a notebook that takes so many times as long fails.

Tolerances are read from JSON::

    {"relative": 0.05, "absolute": 0.005, "time": 2.0,
     "only": {"04_*/minutes of labels/*": {"absolute": 0.1}, "02_*/probe/* live": {"ignore": true}}}

Patterns, the first that fits, are those of a shell, on "notebook/number".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from kdkit.common.errors import ConfigError
from kdkit.common.validation import FLAG, NOT_NEGATIVE, fields, read_json, table_of
from kdkit.report.compare import Row, rows_of

_NUMBERS = {"relative": NOT_NEGATIVE, "absolute": NOT_NEGATIVE}
TOLERANCES = fields(
    {},
    {
        **_NUMBERS,
        "time": NOT_NEGATIVE,
        "only": table_of(fields({}, {**_NUMBERS, "ignore": FLAG}, others=False)),
    },
    others=False,
)


@dataclass(frozen=True)
class Tolerances:
    """How far a number may be from that of the earlier run; see the top of this file."""

    relative: float = 0.05
    absolute: float = 0.005
    time: float | None = None
    only: dict[str, dict] = field(default_factory=dict)

    def of(self, row: Row) -> dict:
        """relative, absolute and ignore for one number."""
        name = f"{row.notebook}/{row.name}"
        special = next((rule for pattern, rule in self.only.items() if fnmatchcase(name, pattern)), {})
        return {"relative": self.relative, "absolute": self.absolute, "ignore": False} | special


def read_tolerances(path: Path | str | None) -> Tolerances:
    """From a JSON file; None: the defaults. Raises :class:`ConfigError` for what it does not know or cannot be."""
    if path is None:
        return Tolerances()
    advice = (
        "tolerances are relative, absolute and time, numbers of 0 or more, and only: {pattern: {..., ignore}}"
    )
    return Tolerances(**read_json(path, TOLERANCES, advice))


def check(new: dict, good: dict, tolerances: Tolerances | None = None) -> list[str]:
    """What is wrong with run ``new``, given the earlier run ``good``: a sentence for each; empty if it passes.

    Raises :class:`ConfigError` for runs that were asked for different things.
    """
    tolerances = tolerances or Tolerances()
    for name in ("profile", "seed", "parameters"):
        if new[name] != good[name]:
            raise ConfigError(f"the reports cannot be compared: {name} is {new[name]} and was {good[name]}")
    problems = []
    earlier = {entry["name"]: entry for entry in good["notebooks"]}
    for entry in new["notebooks"]:
        if entry["status"] != "done":
            problems.append(f"{entry['name']}: {entry['status']}")
        before = earlier.pop(entry["name"], None)
        if tolerances.time and before and before["seconds"]:
            ratio = entry["seconds"] / before["seconds"]
            if ratio > tolerances.time:
                problems.append(
                    f"{entry['name']}: took {ratio:.1f} times as long ({tolerances.time:g} allowed)"
                )
    problems += [f"{name}: is missing" for name in earlier]
    return problems + [
        problem for row in rows_of([good, new]) if (problem := _problem(row, tolerances.of(row)))
    ]


def _problem(row: Row, rule: dict) -> str | None:
    old, new = row.entries
    if row.timing or rule["ignore"] or row.equal or old is None:
        return None
    name = f"{row.notebook}/{row.name}"
    if new is None:
        return f"{name}: is missing, was {row.text(0)}"
    changed = f"{name}: is {row.text(1)}, was {row.text(0)}"
    if isinstance(old["value"], (str, bool)) or isinstance(new["value"], (str, bool)):
        return changed
    allowed = rule["absolute"] + rule["relative"] * abs(old["value"])
    difference = new["value"] - old["value"]
    if row.name.startswith(("WER ", "CER ")):
        difference = max(0.0, difference)
    if abs(difference) <= allowed or row.overlap(1) == "overlap":
        return None
    return f"{changed}: {row.difference(1)}, {allowed:.3g} allowed"
