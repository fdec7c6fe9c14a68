"""A class graded: a row for every exercise of every notebook, in a CSV that is whole at any time."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path

from kdkit.common.errors import ConfigError
from kdkit.common.files import read_text, write_text
from kdkit.common.progress import tqdm
from kdkit.lessons.grading.judge import Judge, Row
from kdkit.lessons.grading.notebooks import read_cells
from kdkit.lessons.grading.submissions import Submission

COLUMNS = [field.name for field in fields(Row)]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would compute


def grade_class(
    judge: Judge, submissions: Sequence[Submission], out: Path, jobs: int = 1, fresh: bool = False
) -> list[Row]:
    """Grades all notebooks and writes ``out`` after each; ``jobs`` notebooks at a time.

    Rows that ``out`` has already are kept, unless ``fresh``: those of notebooks that are not among these, and those
    where notebook and checks are the same. Ctrl-C leaves the rows of the notebooks that were done. Raises
    :class:`ConfigError` where ``out`` is another table.
    """
    kept = {} if fresh else _by_notebook(read_rows(out))
    prints = {s.path: _fingerprint(s, judge) for s in submissions}
    others = {path: rows for path, rows in kept.items() if path not in prints}
    done = {
        path: rows for path, rows in kept.items() if {row.fingerprint for row in rows} == {prints.get(path)}
    }
    missing = [s for s in submissions if s.path not in done]
    bar = tqdm(total=len(submissions), initial=len(done), desc="grading", unit="notebook", smoothing=0)
    pool = ThreadPoolExecutor(jobs)
    waiting = {pool.submit(_rows, judge, s, prints[s.path]): s for s in missing}
    try:
        while waiting:
            ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                done[waiting[future].path] = future.result()
                del waiting[future]
                bar.update()
            write_rows(out, _in_order(done | others))
    finally:
        judge.stop()
        for future, submission in waiting.items():
            if not future.cancel() and future.done() and future.exception() is None:
                done[submission.path] = future.result()
        pool.shutdown()
        bar.close()
        rows = _in_order(done | others)
        write_rows(out, rows)
    return rows


def _rows(judge: Judge, submission: Submission, fingerprint: str) -> list[Row]:
    def row(lesson: str, exercise: str, verdict: str, hint: str) -> Row:
        return Row(submission.learner, lesson, exercise, verdict, hint, submission.path, fingerprint)

    trouble = submission.trouble
    try:
        cells = [] if trouble else read_cells(submission.data)
    except ValueError as error:
        trouble = str(error)
    graded = [] if trouble else judge.grade(cells)
    if not graded:
        return [row("", "", "unreadable", trouble or "it has none of the kit's exercises")]
    return [row(*of_exercise) for of_exercise in graded]


def _in_order(graded: dict[str, list[Row]]) -> list[Row]:
    """Of learners and paths, as submissions are."""
    notebooks = sorted(graded.values(), key=lambda rows: (rows[0].learner.casefold(), rows[0].notebook))
    return [row for rows in notebooks for row in rows]


# --- the table ---------------------------------------------------------------------------------------------------


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes the CSV, at once or not at all; with a byte order mark, by which spreadsheets know UTF-8."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows({name: _harmless(value) for name, value in asdict(row).items()} for row in rows)
    write_text(path, "\ufeff" + text.getvalue())


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV of :func:`write_rows`; none where there is no file."""
    if not path.exists():
        return []
    table = csv.DictReader(io.StringIO(read_text(path, ConfigError)))
    try:
        if table.fieldnames != COLUMNS:
            raise ValueError("its columns are others")
        return [Row(**{name: _plain(value) for name, value in line.items()}) for line in table]
    except (TypeError, ValueError, csv.Error) as error:
        raise ConfigError(
            f"{path}: is there, but kdkit grade did not write it ({error}); name another file, or replace it "
            "with --fresh"
        ) from None


def _harmless(value: str) -> str:
    """A text that spreadsheets take as text, whatever a learner made it begin with."""
    return f"'{value}" if value.startswith(_FORMULA) else value


def _plain(value: str) -> str:
    return value[1:] if value.startswith("'") and value[1:].startswith(_FORMULA) else value


def _by_notebook(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.notebook, []).append(row)
    return found


def _fingerprint(submission: Submission, judge: Judge) -> str:
    """Of a notebook, and of what judges it: code and limits."""
    judged_by = _code() + repr(judge.limits).encode()
    return hashlib.sha256(judged_by + submission.trouble.encode() + submission.data).hexdigest()[:12]


@cache
def _code() -> bytes:
    here = Path(__file__).parent
    files = sorted([*here.glob("*.py"), *(here.parent / "exercises").glob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()
