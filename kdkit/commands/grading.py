"""``kdkit grade``: the exercises of a class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import app
from kdkit.commands.options import file_option


@app.command(
    epilog="Examples: kdkit grade submissions --out grades.csv\n\n"
    "kdkit grade moodle-download.zip --out lesson2.csv --report lesson2.html --seconds 60\n\n"
    "kdkit grade anna.ipynb ben.ipynb --out grades.csv --fresh            # grade anew what is in grades.csv"
)
def grade(
    submissions: Annotated[
        list[Path],
        typer.Argument(
            metavar="SUBMISSIONS...", help="Folders, .zip files and notebooks that were handed in."
        ),
    ],
    out: Annotated[Path, file_option("CSV: learner, lesson, exercise, verdict, hint.")] = Path("grades.csv"),
    report: Annotated[
        Path | None, file_option("HTML page for the lecturer; default: beside the CSV, ending in .html.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Time limit for an exercise, all its cases.")] = 30,
    memory: Annotated[int, typer.Option(min=64, metavar="MB", help="Memory that an answer may take.")] = 1024,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Notebooks at a time; default: one for each core.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin a new CSV; else what it has already is kept.")
    ] = False,
    notebooks: Annotated[
        Path | None, typer.Option(help="Folder of the notebooks as they were given out; default: the kit's.")
    ] = None,
) -> None:
    """Grade the exercises in learners' notebooks with the kit's own checks, and say what the class misses.

    A learner is the first folder within SUBMISSIONS, or the file; exercises are found by what the cells say. Only code
    counts, no output of a notebook. It is run without network in processes of its own that cannot reach the verdict;
    docs/teaching.md says what holds on which system. After Ctrl-C the same command goes on.

    The exit status is 0 when all notebooks were graded, 1 when one could not be read, 130 after Ctrl-C.
    """
    from kdkit.common.parallel import cores
    from kdkit.lessons.grading.catalogue import read_lessons
    from kdkit.lessons.grading.classroom import grade_class, read_rows
    from kdkit.lessons.grading.judge import Judge
    from kdkit.lessons.grading.page import confinement, summary, write_page
    from kdkit.lessons.grading.process import Limits
    from kdkit.lessons.grading.submissions import collect
    from kdkit.report.plan import PACKAGE, find_notebooks

    shipped = find_notebooks(notebooks)
    lessons = read_lessons(shipped)
    found = collect(submissions, [lesson.name for lesson in lessons])
    named = {submission.path for submission in found}
    report = report or out.with_suffix(".html")
    source = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else PACKAGE
    hidden = [path.resolve() for path in (source, PACKAGE, shipped[0].parent, *submissions, out, report)]
    judge = Judge(lessons, hidden, Limits(seconds, memory << 20))
    try:
        rows = grade_class(judge, found, out, jobs or cores(), fresh)
    except KeyboardInterrupt:
        done = {row.notebook for row in read_rows(out)} & named
        print(
            f"stopped: {out} has {len(done)} of {len(found)} notebooks; the same command goes on from there"
        )
        raise typer.Exit(130) from None
    write_page(report, rows, lessons, judge.limits, judge.holds)
    print("\n".join(summary(rows, lessons)))
    if judge.holds and not all(judge.holds.values()):
        print(f"note: {confinement(judge.holds)}")
    print(f"grades: {out.absolute()}\npage: {report.absolute()}")
    raise typer.Exit(1 if any(row.verdict == "unreadable" and row.notebook in named for row in rows) else 0)
