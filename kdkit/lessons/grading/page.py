"""The lecturer's page: which exercises the class misses, with which hints, and how far everybody came."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import jinja2

from kdkit.common.files import write_text
from kdkit.lessons.grading.catalogue import Lesson
from kdkit.lessons.grading.judge import VERDICTS, Row
from kdkit.lessons.grading.process import Limits

SIGNS = {
    "right": "✓",
    "by hand": "?",
    "solution shown": "=",
    "wrong": "✗",
    "crashed": "!",
    "too long": "∞",
    "not answered": "–",
}
REPORTED = ("wrong", "crashed", "too long")  # whose hints are counted
# what differs in a hint from case to case
_CHANGING = re.compile(r"'[^']*'|\[[^\]]*\]|\([^)]*\)|[-+]?\d[\d.,e-]*")


@dataclass(frozen=True)
class Standing:
    """An exercise in the class: how many learners have which verdict, and the hints from the commonest on."""

    lesson: str
    exercise: str
    verdicts: Counter[str]
    hints: list[tuple[str, int]]

    @property
    def learners(self) -> int:
        return self.verdicts.total()

    @property
    def missed(self) -> float:
        """The share of the learners who do not have it right; 0 where nobody but the lecturer can tell."""
        return 1 - (self.verdicts["right"] + self.verdicts["by hand"]) / max(1, self.learners)


def best(rows: Sequence[Row]) -> list[Row]:
    """One row for each learner and exercise: the best, where somebody handed in a lesson twice."""
    order, chosen = list(VERDICTS), {}
    for row in rows:
        key = row.learner, row.lesson, row.exercise
        if row.exercise and (
            key not in chosen or order.index(row.verdict) < order.index(chosen[key].verdict)
        ):
            chosen[key] = row
    return list(chosen.values())


def standings(rows: Sequence[Row], lessons: Sequence[Lesson]) -> list[Standing]:
    """Of every exercise that somebody handed in, in the order of the lessons."""
    found = []
    for lesson in lessons:
        for exercise in lesson.exercises:
            own = [r for r in best(rows) if (r.lesson, r.exercise) == (lesson.name, exercise.label)]
            if own:
                verdicts = Counter(row.verdict for row in own)
                found.append(Standing(lesson.name, exercise.label, verdicts, _commonest(own)))
    return found


def _commonest(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Hints and how many learners have them; hints that differ by their numbers count as one."""
    alike: dict[str, list[str]] = {}
    for row in rows:
        if row.verdict in REPORTED:
            alike.setdefault(_CHANGING.sub("#", row.hint), []).append(row.hint)
    return sorted(((min(hints, key=len), len(hints)) for hints in alike.values()), key=lambda pair: -pair[1])


def summary(rows: Sequence[Row], lessons: Sequence[Lesson]) -> list[str]:
    """The class in a few lines, for a terminal."""
    found = standings(rows, lessons)
    unreadable = {row.notebook for row in rows if row.verdict == "unreadable"}
    notebooks = len({row.notebook for row in rows})
    learners = len({row.learner for row in rows if row.exercise})
    lines = [f"{notebooks - len(unreadable)} of {notebooks} notebooks graded, of {learners} learners"]
    lines += [f"  not graded: {row.notebook}: {row.hint}" for row in rows if row.verdict == "unreadable"]
    for each in sorted(found, key=lambda s: -s.missed)[:3]:
        if each.missed:
            right = each.verdicts["right"]
            lines.append(f"  missed most: {each.lesson}, {each.exercise}: {right} of {each.learners} right")
    return lines


def confinement(holds: dict[str, bool] | None) -> str:
    """What kept learners' code in its place, in a sentence."""
    if holds is None:
        return "No learner's code was run this time."
    kernel = []
    if holds["calls"]:
        kernel.append("no network, no other program and no other process (seccomp)")
    if holds["files"]:
        kernel.append(
            "no file to write outside its throw-away folder, and the kit and the submissions hidden (Landlock)"
        )
    said = f"Learners' code ran with limits that the kernel holds: {'; '.join(kernel)}. " if kernel else ""
    if len(kernel) < 2:
        said += (
            "Python's own guard "
            + ("held the rest" if kernel else "alone kept learners' code from network, programs and files")
            + ": it stops ordinary code, not code written to break out. Verdicts were decided elsewhere all the same."
        )
    return said.strip()


def write_page(
    path: Path, rows: Sequence[Row], lessons: Sequence[Lesson], limits: Limits, holds: dict[str, bool] | None
) -> None:
    """Writes the page, one file that needs no network."""
    found = standings(rows, lessons)
    chosen = {(row.learner, row.lesson, row.exercise): row for row in best(rows)}
    text = (
        jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        .get_template("page.html.j2")
        .render(
            standings=found,
            worst=[s for s in sorted(found, key=lambda s: -s.missed) if s.missed][:3],
            rows=rows,
            chosen=chosen,
            learners=sorted({row.learner for row in chosen.values()}, key=str.casefold),
            unreadable=[row for row in rows if row.verdict == "unreadable"],
            by_hand=[row for row in chosen.values() if row.verdict == "by hand"],
            twice=_twice(rows),
            verdicts={name: said for name, said in VERDICTS.items() if name in SIGNS},
            signs=SIGNS,
            limits=limits,
            confinement=confinement(holds),
            now=datetime.now(),
        )
    )
    write_text(path, text)


def _twice(rows: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """(learner, lesson, notebooks) where a lesson was handed in more than once."""
    found: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row.exercise:
            found.setdefault((row.learner, row.lesson), set()).add(row.notebook)
    return [(*key, sorted(notebooks)) for key, notebooks in found.items() if len(notebooks) > 1]
