"""Runs the notebooks in order by papermill and keeps what they found: executed notebooks, run.json and one index page.

The run folder afterwards::

    index.html                    the report: opens offline, everything embedded
    run.json                      what the run was made of, how each notebook ended, every number (kdkit.report.record)
    notebooks/NN_name.ipynb .html executed
    metrics/ figures/ audio/ pages/   what each notebook handed over (kdkit.lessons.results)
    training/                     what notebooks trained, if they keep it

All of it is rewritten after each notebook, so a run that is stopped or fails leaves a page of what was done.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from kdkit.common.errors import ConfigError, OutputError
from kdkit.common.files import LOCK, alone, write_atomically, writing
from kdkit.lessons.profiles import get_profile
from kdkit.report.execute import STOPPED, own_kernel, run_notebook
from kdkit.report.index_page import write_index
from kdkit.report.notebook_page import write_notebook_html
from kdkit.report.plan import (
    WORLD,
    checked_world,
    choose_parameters,
    declared_parameters,
    find_notebooks,
    select,
    title_of,
)
from kdkit.report.record import (
    FORMAT,
    changes,
    fingerprints,
    is_run,
    new_entry,
    provenance,
    read_records,
    read_run,
    write_run,
)

OWNED = ("notebooks", "metrics", "figures", "audio", "pages", "training")  # folders that a new run replaces
RESERVED = ".reserve"
RESERVE = 16 * 2**20  # bytes kept free in the run folder, so that a full disk can still be reported there


def run_report(
    profile: str,
    out: Path | str,
    seed: int = 0,
    overrides: dict[str, object] | None = None,
    notebooks: Path | str | None = None,
    only: Sequence[str] = (),
    start: str | None = None,
    resume: bool = False,
    timeout: float | None = None,
) -> int:
    """Runs every notebook of folder ``notebooks`` (default: the kit's own) in order and writes the report to ``out``.

    ``overrides`` sets further parameters in each notebook that has them; a world file among them may be relative to
    where this runs. ``timeout`` is in minutes, for one notebook. Returns the exit status: 0, 1 when a notebook failed
    (those after it are not run), 130 after Ctrl-C; the page and the executed notebooks are there in every case.

    An ``out`` that holds an earlier report is replaced. ``resume`` keeps the notebooks in it that finished with the
    same parameters, code, shipped models, packages and machine, with the same notebooks before them; what an
    unfinished one trained stays, too. ``only`` and ``start`` (see :func:`kdkit.report.plan.select`) run some of the
    notebooks and leave the others in ``out`` as they are; the page marks those that other code or parameters made.

    Raises :class:`ConfigError` before anything runs: unknown profile, notebook or parameter, a value of another type,
    a world with something wrong in it, no notebooks, an ``out`` that holds other files or a report in progress, or,
    where only some notebooks are to run, a report of another profile or seed.
    """
    sizes = asdict(get_profile(profile))
    if timeout is not None and timeout <= 0:
        raise ConfigError(f"--timeout {timeout:g}: give minutes, more than 0")
    paths = find_notebooks(notebooks)
    wanted = select(paths, only, start)
    out = Path(out).absolute()
    overrides = dict(overrides or {})
    if WORLD in overrides:
        overrides[WORLD] = checked_world(overrides[WORLD])
    parameters = {"profile": profile, "seed": seed, "out": str(out), **overrides}
    chosen = choose_parameters(wanted, parameters)
    for path in paths:  # the others count in the fingerprints of later ones
        if path not in chosen:
            known = declared_parameters(path)
            chosen[path] = {name: value for name, value in parameters.items() if name in known}
    _check_folder(out)
    earlier = read_run(out) if (resume or len(wanted) < len(paths)) and is_run(out) else None
    if earlier and len(wanted) < len(paths) and (earlier["profile"], earlier["seed"]) != (profile, seed):
        raise ConfigError(
            f"{out} holds a report of profile {earlier['profile']}, seed {earlier['seed']}: choose another folder, "
            "or run all notebooks"
        )
    made_of = provenance()
    marks = fingerprints(paths, chosen, made_of)
    before = {entry["name"]: _settled(entry) for entry in earlier["notebooks"]} if earlier else {}
    entries, to_run = [], []
    for path in paths:
        entry = before.get(path.stem) or {"name": path.stem, "status": "waiting"}
        differs = changes(entry.get("fingerprint"), marks[path.stem])
        keep = path not in wanted or (
            resume and entry["status"] == "done" and not differs and _whole(out, path)
        )
        if not keep:
            to_run.append(path)
            if resume and entry["status"] != "waiting" and differs:
                print(f"{path.stem} runs again: {', '.join(differs)}", file=sys.stderr)
            same = resume and not differs  # then what it trained so far is good
            entry = {"same": same}
        elif entry["status"] != "waiting":
            entry["differs"] = differs
        entries.append(new_entry(path.stem, title_of(path)) | entry)
    kept = any(entry["status"] == "done" for entry in entries)
    run = {
        "format": FORMAT,
        "profile": profile,
        "sizes": sizes,
        "seed": seed,
        "parameters": overrides,
        "status": "running",
        "started": earlier["started"] if kept else _now(),
        "ended": None,
        "seconds": 0.0,
        **made_of,
        "notebooks": entries,
    }
    with alone(out, "report"):
        return _run_all(run, out, to_run, chosen, marks, timeout, kept)


def _run_all(run: dict, out: Path, to_run: list[Path], chosen, marks, timeout, kept: bool) -> int:
    """Runs ``to_run`` and keeps ``run`` up to date on disk; returns the exit status."""
    entries = {entry["name"]: entry for entry in run["notebooks"]}
    fresh = not kept and not any(entry.get("same") for entry in entries.values())
    for name in OWNED if fresh else ():
        shutil.rmtree(out / name, ignore_errors=True)
    for path in to_run:
        _forget(out, path.stem, training=not entries[path.stem].pop("same"))
    trail = [(entry["name"], entry["title"]) for entry in run["notebooks"]]
    status = 0
    with _reserve(out) as free, own_kernel():
        try:
            for path in to_run:
                entry = entries[path.stem]
                entry |= {"status": "running", "started": _now(), "fingerprint": marks[path.stem]}
                entry["parameters"] = {n: v for n, v in chosen[path].items() if n != "out"}
                label = f"[{run['notebooks'].index(entry) + 1}/{len(entries)}] {path.stem}"
                status = 0 if _save(out, run, free) else 1
                status = status or run_notebook(path, out, chosen[path], entry, label, timeout, free)
                entry["ended"] = _now()
                _save(out, run, free)
                _render(out / "notebooks" / path.name, trail)
                if status:
                    break
        except KeyboardInterrupt:  # between two notebooks
            status = STOPPED
            for entry in run["notebooks"]:
                entry.update(_settled(entry))
        run["status"] = _ending(status, entries.values())
        run["ended"] = _now()
        return status if _save(out, run, free) else status or 1


def _settled(entry: dict) -> dict:
    """The entry of a notebook of an earlier run; one that was running when its run was killed is interrupted."""
    if entry["status"] != "running":
        return entry
    error = {"where": "a cell", "message": "the run was killed", "source": "", "traceback": ""}
    return entry | {"status": "interrupted", "error": error}


def _ending(status: int, entries) -> str:
    if status:
        return "interrupted" if status == STOPPED else "failed"
    return "done" if all(entry["status"] == "done" for entry in entries) else "partial"


def _save(out: Path, run: dict, make_room: Callable[[], object]) -> bool:
    """run.json and index.html from what is there now. False, with a message, where they cannot be written."""
    run["seconds"] = sum(entry["seconds"] for entry in run["notebooks"])
    for attempt in range(2):
        try:
            with writing(out):
                records = read_records(out, [entry["name"] for entry in run["notebooks"]])
                write_run(out, run, records)
                write_index(out, run, records)
                return True
        except OutputError as error:
            make_room()
            if attempt:
                print(f"the report's page cannot be written: {error}", file=sys.stderr)
    return False


def _render(executed: Path, trail: list[tuple[str, str]]) -> None:
    """Renders the executed notebook as HTML; a failure is printed and does not stop the run."""
    if executed.is_file():
        try:
            write_notebook_html(executed, dict(trail)[executed.stem], trail)
        except Exception as error:  # nbconvert, the templates and the file system each raise their own
            print(f"no HTML of {executed}: {type(error).__name__}: {error}", file=sys.stderr)


@contextmanager
def _reserve(out: Path) -> Iterator[Callable[[], object]]:
    """Reserves disk space, so that a full disk can still be reported there; yields the function that frees it."""
    path = out / RESERVED
    try:
        with writing(path):
            write_atomically(path, lambda temporary: temporary.write_bytes(bytes(RESERVE)))
    except OutputError as error:
        raise OutputError(f"{out}: no room for a report: {error}") from error
    try:
        yield lambda: path.unlink(missing_ok=True)
    finally:
        path.unlink(missing_ok=True)


def _check_folder(out: Path) -> None:
    """Rejects a folder that holds files but no report."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file: choose a folder for the report")
    starting = (LOCK, RESERVED)  # of a report that is being made, or was killed before its first page
    if out.is_dir() and not is_run(out) and any(path.name not in starting for path in out.iterdir()):
        raise ConfigError(f"{out} is not empty and holds no earlier report: choose another folder")


def _forget(out: Path, name: str, training: bool) -> None:
    """Removes what an earlier run of that notebook left; what it trained only if asked to."""
    for file in (f"notebooks/{name}.ipynb", f"notebooks/{name}.html", f"metrics/{name}.json"):
        (out / file).unlink(missing_ok=True)
    for folder in ("figures", "audio", "pages", *(["training"] if training else [])):
        shutil.rmtree(out / folder / name, ignore_errors=True)


def _whole(out: Path, path: Path) -> bool:
    """True if everything that a finished notebook leaves is there."""
    return (out / "notebooks" / path.name).is_file() and bool(read_records(out, [path.stem]))


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
