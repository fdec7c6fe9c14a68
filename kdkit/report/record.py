"""``run.json``: what a run was made of, how each notebook ended, and every number that it found.

format      1
profile, sizes, seed, parameters      what was asked for; sizes: of the profile, seeds of studies among them
status      running, done, partial (only some notebooks were wanted), failed, interrupted
started, ended      ISO 8601 with the offset from UTC
seconds     of all notebooks together
code, machine, packages, checkpoints, assets      see provenance()
notebooks   of each: name, title, status, started, ended, seconds, peak_memory (bytes: kdkit.report.execute.PeakMemory),
            parameters, fingerprint, differs (what has changed since it ran, where it was left alone), error, data and
            models (SHA-256 of what it used: kdkit.lessons.results)
world       what the notebooks were about, by name; "" where none has said so yet
systems, metrics, verdicts      what the notebooks found (kdkit.lessons.results), marked with the notebook
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution, distributions, version
from pathlib import Path

from kdkit.common.errors import ConfigError
from kdkit.common.files import write_text
from kdkit.common.machine import environment
from kdkit.common.validation import (
    COUNT,
    FLAG,
    NOT_NEGATIVE,
    SCALAR,
    TEXT,
    TIME,
    fields,
    list_of,
    maybe,
    misfit,
    one_of,
    read_json,
    table_of,
)
from kdkit.lessons.records import METRIC, OUTCOMES, SPEECH, SYSTEM, read_results
from kdkit.report.plan import PACKAGE, WORLD, read_notebook

NAME = "run.json"
FORMAT = 1
STATUS = ("waiting", "running", "done", "failed", "interrupted")  # of a notebook


_MARKS = table_of(TEXT)
_MACHINE = dict.fromkeys(("cpu", "gpu", "cores", "threads", "device", "precision", "python"), SCALAR)
_ENTRY = fields(
    {"name": {"type": "string", "pattern": r"^\w[\w .-]{0,200}$"}, "title": TEXT, "status": one_of(STATUS)}
    | {"seconds": NOT_NEGATIVE | {"maximum": 1e9}, "peak_memory": COUNT}
    | {"error": maybe(fields({"where": TEXT, "message": TEXT, "source": TEXT, "traceback": TEXT}))},
    {"started": maybe(TIME), "ended": maybe(TIME), "differs": list_of(TEXT), "fingerprint": _MARKS}
    | {"parameters": {"type": "object"}, "data": table_of(SPEECH), "models": table_of(TEXT)},
)
# "not better" stands in runs of earlier versions
_VERDICT = fields({"notebook": TEXT, "name": TEXT, "outcome": one_of((*OUTCOMES, "not better"))})
RUN = fields(
    {"profile": TEXT, "seed": {"type": "integer"}, "parameters": {"type": "object"}, "status": TEXT}
    | {"started": TIME, "seconds": NOT_NEGATIVE | {"maximum": 1e9}, "notebooks": list_of(_ENTRY)}
    | {"code": fields({"commit": maybe(TEXT), "dirty": maybe(FLAG), "sources": TEXT})}
    | {
        "machine": fields(_MACHINE),
        "packages": table_of(TEXT),
        "checkpoints": table_of(TEXT),
    }
    | {"systems": list_of({"allOf": [SYSTEM, fields({"notebook": TEXT})]}), "verdicts": list_of(_VERDICT)}
    | {"metrics": table_of(table_of(METRIC))},
    {"ended": maybe(TIME), "assets": maybe(TEXT), "world": TEXT},
)


def new_entry(name: str, title: str) -> dict:
    """A notebook that has not run."""
    entry = {"name": name, "title": title, "status": "waiting", "started": None, "ended": None}
    return entry | {"seconds": 0.0, "peak_memory": 0, "differs": [], "error": None}


def write_run(out: Path, run: dict, records: dict[str, dict]) -> None:
    """``out/run.json``: ``run`` and what the notebooks left, as :func:`read_records` gives it."""
    worlds = [record["world"] for record in records.values() if record.get("world")]
    run["world"] = worlds[0] if worlds else ""
    found = {"systems": [], "metrics": {}, "verdicts": []}
    for name, record in records.items():
        found["systems"] += [row | {"notebook": name} for row in record["systems"]]
        found["metrics"][name] = record["metrics"]
        found["verdicts"] += [
            {"notebook": name, "name": item["name"], "outcome": item["outcome"]}
            for item in record["items"]
            if item["kind"] == "verdict"
        ]
        for entry in run["notebooks"]:
            if entry["name"] == name:
                entry |= {kind: record.get(kind, {}) for kind in ("data", "models")}
    write_text(out / NAME, json.dumps({**run, **found}, indent=1, ensure_ascii=False) + "\n")


def read_run(path: Path | str) -> dict:
    """The run in folder ``path``, or in the file ``path`` that was once a ``run.json``.

    Raises :class:`ConfigError` where there is none, it is damaged, or it is of another kind.
    """
    path = Path(path)
    try:
        file = path / NAME if path.is_dir() else path
        if not file.is_file():
            raise ConfigError(f"{path}: no report there: name a folder that kdkit report made, or its {NAME}")
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise ConfigError(f"{path}: cannot be looked at ({error.strerror})") from error
    run = read_json(file, {"type": "object"}, "make the report again")
    if run.get("format") != FORMAT:
        raise ConfigError(f"{file}: not a run of this version of kdkit report; make the report again")
    problem = misfit(run, RUN)
    if problem:
        raise ConfigError(f"{file}: {problem}; make the report again")
    return run


def is_run(out: Path) -> bool:
    """True for a folder that holds a report, whole or not: it may be replaced."""
    return (out / NAME).is_file()


def read_records(out: Path, names: Iterable[str]) -> dict[str, dict]:
    """What those notebooks left in ``out``, for each that left something readable."""
    records = {}
    for name in names:
        try:
            record = read_results(out, name)
        except ConfigError:  # damaged: it will be made again
            record = None
        if record:
            records[name] = record
    return records


def find_runs(folder: Path | str) -> list[tuple[Path, dict | None]]:
    """(folder, run) of every report in or below ``folder``, oldest first; None for a run that cannot be read."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    found = []
    for file in folder.rglob(NAME):
        try:  # one that is damaged must not hide the others
            found.append((file.parent, read_run(file)))
        except ConfigError:
            found.append((file.parent, None))
    return sorted(found, key=lambda item: (item[1]["started"] if item[1] else "", str(item[0])))


def main_system(run: dict) -> dict | None:
    """The distilled recogniser with the lowest WER on test-clean; failing that any recogniser that was scored."""
    scored = [system for system in run["systems"] if "test-clean" in system["wer"]]
    students = [system for system in scored if system["role"] == "distilled"] or scored
    return min(students, key=lambda system: system["wer"]["test-clean"]["value"], default=None)


def repeat_command(run: dict, out: str = "DIR") -> str:
    """The command line that makes the same run again."""
    given = [f"KDKIT_ASSETS={shlex.quote(run['assets'])}"] if run.get("assets") else []
    words = [*given, "kdkit report", f"--profile {shlex.quote(run['profile'])}", f"--seed {run['seed']}"]
    for name, value in run["parameters"].items():
        if name == WORLD:
            words.append(f"--world {shlex.quote(value)}")
        else:
            words.append("--set " + shlex.quote(f"{name}={value if isinstance(value, str) else repr(value)}"))
    return " ".join([*words, f"--out {shlex.quote(out)}"])


# --- what a run was made of ---------------------------------------------------------------------------------------

COMMIT = "KDKIT_COMMIT"  # environment variable: the commit, where neither git nor pip can tell (a container)

# What a notebook's numbers depend on, in words; --resume names what changed in this order.
PARTS = {
    "parameters": "other parameters",
    "notebook": "another notebook",
    "package": "another version of kdkit",
    "assets": "other shipped models",
    "environment": "other packages or another machine",
    "before": "an earlier notebook ran again",
}


def code_version() -> dict[str, object]:
    """Which code this is: ``version``, ``commit``, ``dirty`` (None: unknown), ``sources`` (SHA-256 of the package).

    The commit is git's where the package lies in its own working tree ("dirty": changed or new files in kdkit or
    notebooks), else the one that pip recorded when it installed from a repository, else the variable KDKIT_COMMIT.
    """
    try:
        installed = version("kdkit")
    except PackageNotFoundError:
        installed = None
    found = {"version": installed, "commit": None, "dirty": None, "sources": hash_files(_sources(), PACKAGE)}
    if (PACKAGE.parent / ".git").exists() and (PACKAGE.parent / "pyproject.toml").exists():
        found["commit"] = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--", "kdkit", "notebooks")
        found["dirty"] = None if changes is None else bool(changes)
    found["commit"] = found["commit"] or _commit_of_pip() or os.environ.get(COMMIT) or None
    return found


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(PACKAGE.parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _commit_of_pip() -> str | None:
    """The commit of ``pip install git+https://...``, which pip keeps in direct_url.json."""
    try:
        kept = json.loads(distribution("kdkit").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    return kept.get("vcs_info", {}).get("commit_id")


def package_versions() -> dict[str, str]:
    """Name and version of every installed package."""
    found = {}
    # setuptools puts the packages within it on the path when it is imported
    places = [place for place in sys.path if Path(place).name != "_vendor"]
    for each in distributions(path=places):  # a package may be on the path twice: the first one is imported
        name, version = each.metadata.get("Name"), each.metadata.get("Version")
        if name and version:  # both missing where an installation was broken off
            found.setdefault(name, version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def checkpoint_hashes(folder: Path | None = None) -> dict[str, str]:
    """SHA-256 of every shipped file that notebooks may read, by name. Loads torch."""
    from kdkit.teachers import ASSETS

    folder = folder or ASSETS
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".safetensors", ".json")
    }


def provenance() -> dict[str, object]:
    """Everything of a run that is the same for all its notebooks: code, machine, packages, checkpoints and, where they
    did not ship with the kit, their folder ("assets").
    """
    return {
        "code": code_version(),
        "machine": environment(),
        "packages": package_versions(),
        "checkpoints": checkpoint_hashes(),
        "assets": os.environ.get("KDKIT_ASSETS") or None,
    }


def fingerprints(
    paths: Sequence[Path], chosen: dict[Path, dict[str, object]], made_of: dict[str, object]
) -> dict[str, dict[str, str]]:
    """For each notebook a short digest of everything that its numbers depend on, part by part (:data:`PARTS`).

    ``chosen`` are its parameters; the run folder's name among them does not count, of a world file its content does.
    ``before`` stands for the notebooks that run before it, because a later one may use what an earlier one left.
    """
    shared = {
        "package": digest(made_of["code"]["sources"]),
        "assets": digest(made_of["checkpoints"]),
        "environment": digest([made_of["machine"], made_of["packages"]]),
    }
    found, before = {}, []
    for path in paths:
        parameters = {name: value for name, value in sorted(chosen[path].items()) if name != "out"}
        if WORLD in parameters and (world := Path(parameters[WORLD])).is_file():
            parameters[WORLD] = hashlib.sha256(world.read_bytes()).hexdigest()
        cells = [(cell.cell_type, cell.source) for cell in read_notebook(path).cells]
        own = {"parameters": digest(parameters), "notebook": digest(cells)}
        found[path.stem] = {**own, **shared, "before": digest(before)}
        before.append(own)
    return found


def changes(earlier: dict[str, str] | None, now: dict[str, str]) -> list[str]:
    """What differs between two fingerprints of a notebook, in words; empty if nothing does."""
    earlier = earlier or {}
    return [words for part, words in PARTS.items() if earlier.get(part) != now[part]]


def digest(value: object) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of ``value`` as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def hash_files(paths: Iterable[Path], root: Path) -> str:
    """SHA-256 of several files and their names relative to ``root``; CRLF counts as LF."""
    total = hashlib.sha256()
    for path in sorted(paths):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        total.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()


def _sources() -> list[Path]:
    return list(PACKAGE.rglob("*.py"))
