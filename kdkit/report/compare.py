"""Runs side by side: every number of each, how they differ, and whether their intervals overlap.

The first run is what the others are compared with. Overlapping intervals say that the two cannot be told apart by them
alone; a paired test on the same utterances, which notebooks do within a run, can see more.

:func:`check` asks the same for continuous integration: is a run as good as an earlier one?

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

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from kdkit.common.errors import ConfigError
from kdkit.common.validation import FLAG, NOT_NEGATIVE, fields, read_json, table_of
from kdkit.common.wording import between, columns, measure, moment
from kdkit.report.plan import WORLD
from kdkit.report.record import read_run

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Row:
    """One number in every run: ``entries`` has {value, interval?} or None for each; ``timing`` for times and speeds."""

    notebook: str
    name: str
    unit: str
    timing: bool
    entries: tuple[dict | None, ...]

    @property
    def equal(self) -> bool:
        """True if every run has it, and the same."""
        return all(entry == self.entries[0] for entry in self.entries)

    def text(self, index: int) -> str:
        """The number in run ``index`` with its interval, or a dash."""
        entry = self.entries[index]
        if entry is None:
            return "-"
        return measure(entry["value"], self.unit) + between(entry.get("interval"), self.unit)

    def difference(self, index: int) -> str:
        """Run ``index`` minus the first: points for shares, a ratio for times and speeds, "" where neither is."""
        first, other = self.entries[0], self.entries[index]
        if first is None or other is None:
            return "" if first == other else "only in one"
        old, new = first["value"], other["value"]
        if isinstance(old, (str, bool)) or isinstance(new, (str, bool)):
            return "" if old == new else "differs"
        if self.timing:
            return f"{new / old:.2f}x" if old else ""
        if old == new:
            return "0"
        return f"{100 * (new - old):+.1f} points" if self.unit == "share" else f"{new - old:+.3g}"

    def overlap(self, index: int) -> str:
        """Do the intervals of run ``index`` and the first "overlap", or are they "apart"? "" without intervals."""
        intervals = [entry.get("interval") for entry in (self.entries[0], self.entries[index]) if entry]
        if len(intervals) < 2 or not all(intervals):
            return ""
        (low, high), (other_low, other_high) = intervals
        return "overlap" if low <= other_high and other_low <= high else "apart"


def load_runs(paths: Sequence[Path | str]) -> list[dict]:
    """The runs in those folders (or ``run.json`` files). :class:`ConfigError` for fewer than two, or a bad one."""
    if not 2 <= len(paths) <= len(LETTERS):
        raise ConfigError(f"name two to {len(LETTERS)} reports to compare, not {len(paths)}")
    return [read_run(path) for path in paths]


def rows_of(runs: Sequence[dict]) -> list[Row]:
    """Every number of the runs, error rates of recognisers first, in the order of the first run that has it.

    Notebooks that some of the runs lack are left out (:func:`unshared_notebooks`).
    """
    left_out = dict(unshared_notebooks(runs))
    rows = _rows([_scores(run) for run in runs]) + _rows([_metrics(run) for run in runs])
    return [row for row in rows if row.notebook not in left_out]


def unshared_notebooks(runs: Sequence[dict]) -> list[tuple[str, str]]:
    """(notebook, letters of the runs in which it left nothing) for each that some run has and some run lacks."""
    names = dict.fromkeys(name for run in runs for name in run["metrics"])
    missing = {n: "".join(LETTERS[i] for i, run in enumerate(runs) if n not in run["metrics"]) for n in names}
    return [(name, letters) for name, letters in missing.items() if letters]


def _rows(tables: list[dict[tuple[str, str], dict]]) -> list[Row]:
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = []
    for notebook, name in keys:
        found = [table.get((notebook, name)) for table in tables]
        kinds = [entry for entry in found if entry]
        entries = tuple(
            entry and {k: entry[k] for k in ("value", "interval") if k in entry} for entry in found
        )
        timing = any(entry.get("timing", False) for entry in kinds)
        rows.append(Row(notebook, name, kinds[0].get("unit", ""), timing, entries))
    return rows


def _metrics(run: dict) -> dict[tuple[str, str], dict]:
    return {
        (book, name): metric for book, metrics in run["metrics"].items() for name, metric in metrics.items()
    }


def _scores(run: dict) -> dict[tuple[str, str], dict]:
    found = {}
    for system in run["systems"]:
        who = ", ".join(filter(None, (system["name"], system["role"], system["labels"], system["source"])))
        for kind in ("wer", "cer"):
            for split, entry in system[kind].items():
                found[system["notebook"], f"{kind.upper()} {split}: {who}"] = {**entry, "unit": "share"}
    return found


def changed_verdicts(runs: Sequence[dict]) -> list[tuple[str, str, list[str]]]:
    """(notebook, verdict, outcome in each run) of verdicts that differ between the runs; "-" where one is missing."""
    left_out = dict(unshared_notebooks(runs))
    tables = [
        {(v["notebook"], v["name"]): v["outcome"] for v in run["verdicts"] if v["notebook"] not in left_out}
        for run in runs
    ]
    found = []
    for key in dict.fromkeys(key for table in tables for key in table):
        outcomes = [table.get(key, "-") for table in tables]
        if len(set(outcomes)) > 1:
            found.append((*key, outcomes))
    return found


def conditions(runs: Sequence[dict]) -> list[str]:
    """How the runs differ besides their numbers, a sentence for each difference: profile, code, machine, ..."""
    found = []
    asked = [_asked(run) for run in runs]
    for name in asked[0]:
        found += _unlike(name, [one[name] for one in asked])
    found += _unlike("code", [_code(run) for run in runs], [run["code"]["sources"] for run in runs])
    for name in ("cpu", "gpu", "cores", "threads", "device", "precision", "python"):
        found += _unlike(name, [run["machine"][name] for run in runs])
    names = sorted({name for run in runs for name in run["packages"]}, key=str.lower)
    packages = [n for n in names if len({run["packages"].get(n) for run in runs}) > 1]
    if packages:
        listed = [f"{n} {' / '.join(run['packages'].get(n, '-') for run in runs)}" for n in packages[:6]]
        more = f" and {len(packages) - 6} more" if len(packages) > 6 else ""
        found.append(f"packages: {', '.join(listed)}{more}")
    found += _unlike(
        "shipped models", [len(run["checkpoints"]) for run in runs], [run["checkpoints"] for run in runs]
    )
    return found


def _unlike(name: str, shown: list, values: list | None = None) -> list[str]:
    values = shown if values is None else values
    if all(value == values[0] for value in values):
        return []
    return [f"{name}: {' / '.join('none' if value is None else str(value) for value in shown)}"]


def _code(run: dict) -> str:
    commit = run["code"]["commit"]
    known = f"commit {commit[:10]}" if commit else f"sources {run['code']['sources'][:10]}"
    return known + (" with changes" if run["code"]["dirty"] else "")


def describe(path: Path | str, run: dict) -> str:
    """One line about a run: folder, profile, world, seed, date, how it ended, code."""
    what = f"{run['profile']}, world {_asked(run)['world']}, seed {run['seed']}"
    return f"{path}: {what}, {moment(run['started'])}, {run['status']}, {_code(run)}"


def as_text(paths: Sequence[Path | str], runs: Sequence[dict], everything: bool = False) -> str:
    """The comparison for a terminal: without numbers that are equal and without times, unless ``everything``."""
    rows = rows_of(runs)
    shown = [row for row in rows if everything or not (row.equal or row.timing)]
    lines = [
        f"{LETTERS[i]}  {describe(path, run)}" for i, (path, run) in enumerate(zip(paths, runs, strict=True))
    ]
    unlike = conditions(runs)
    lines += [
        "",
        *(["made differently:", *(f"  {text}" for text in unlike)] if unlike else ["made in the same way"]),
        "",
    ]
    others = range(1, len(runs))
    head = ["", *LETTERS[: len(runs)], *(text for i in others for text in (f"{LETTERS[i]} - A", "intervals"))]
    lines += [f"{name} is not in {', '.join(letters)}" for name, letters in unshared_notebooks(runs)]
    notebook, cells = None, []
    for row in shown:
        if row.notebook != notebook:
            notebook = row.notebook
            cells.append([notebook])
        compared = [text for i in others for text in (row.difference(i), row.overlap(i))]
        cells.append(["  " + row.name, *(row.text(i) for i in range(len(runs))), *compared])
    lines += columns(head, cells) if cells else []
    equal, times = sum(row.equal for row in rows), sum(row.timing and not row.equal for row in rows)
    if not everything:
        lines += [
            *([""] if cells else []),
            f"{equal} numbers are equal; {times} times and speeds are not shown (--all)",
        ]
    verdicts = changed_verdicts(runs)
    if verdicts:
        lines += ["", "verdicts that changed:"]
        lines += [f"  {book} {name}: {' / '.join(outcomes)}" for book, name, outcomes in verdicts]
    return "\n".join(lines)


def as_html(paths: Sequence[Path | str], runs: Sequence[dict]) -> str:
    """The comparison as one page that needs no network, with every number."""
    from kdkit.report.index_page import css, environment

    groups = {}
    for row in rows_of(runs):
        groups.setdefault(row.notebook, []).append(row)
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            css=css(),
            letters=LETTERS[: len(runs)],
            descriptions=[describe(path, run) for path, run in zip(paths, runs, strict=True)],
            conditions=conditions(runs),
            unshared=unshared_notebooks(runs),
            groups=groups,
            verdicts=changed_verdicts(runs),
        )
    )


# --- is it as good as it was? -------------------------------------------------------------------------------------

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
    """How far a number may be from that of the earlier run; see the module."""

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
    asked, before = _asked(new), _asked(good)
    for name, value in asked.items():
        if value != before[name]:
            raise ConfigError(f"the reports cannot be compared: {name} is {value} and was {before[name]}")
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


def _asked(run: dict) -> dict[str, object]:
    """What a run was asked for. Its world is the one that it names: a world file may lie in another place."""
    parameters = {name: value for name, value in run["parameters"].items() if name != WORLD}
    world = run.get("world") or run["parameters"].get(WORLD, "toy")
    return {"profile": run["profile"], "world": world, "seed": run["seed"], "parameters": parameters}


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
