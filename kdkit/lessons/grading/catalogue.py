"""The exercises as the kit's notebooks have them: stub, solution, check, and what an answer may use of the kit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from kdkit.common.errors import ConfigError
from kdkit.lessons import exercises
from kdkit.lessons.exercises import distilling, features
from kdkit.lessons.exercises.checking import Steps
from kdkit.lessons.exercises.solutions import stub_and_solution
from kdkit.lessons.grading.notebooks import CHECK, Cell, read_cells
from kdkit.lessons.grading.wire import Named
from kdkit.model.speech_model import SpeechModel, parameter_count, preset
from kdkit.speech.text import VOCABULARY

_BUILT_ON = {"word_error_rate": ("edits",)}  # who failed at one may still do the other
_HEADING = re.compile(r"^### Exercise (\d+): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    """``name``: the function or variable of the answer; ``check``: the function of :mod:`kdkit.lessons.exercises`."""

    number: int
    title: str
    name: str
    check: str
    stub: str
    solution: str

    @property
    def label(self) -> str:
        return f"{self.number} {self.title}"

    @property
    def steps(self) -> Steps | None:
        """Of a function's check; None where something is read off a figure or a table."""
        return getattr(getattr(exercises, self.check), "steps", None)

    @property
    def own(self) -> Callable | None:
        """The kit's function."""
        return getattr(getattr(exercises, self.check), "own", None)


@dataclass(frozen=True)
class Lesson:
    """``name``: "02_distillation"; ``cells``: of the notebook as it ships."""

    name: str
    exercises: tuple[Exercise, ...]
    cells: tuple[Cell, ...]

    def given(self, exercise: Exercise) -> dict[str, object]:
        """What an answer finds of the kit, by name: the letters, counts to read, and what it is built upon."""
        needed = {e.name: e.own for e in self.exercises if e.name in _BUILT_ON.get(exercise.name, ())}
        return {"VOCABULARY": letters(), "counts": Named(**_counts())} | needed


def read_lessons(paths: Sequence[Path]) -> list[Lesson]:
    """The lessons of the kit's notebooks; raises :class:`ConfigError` where one has no exercise."""
    return [_lesson(path.stem, read_cells(path.read_bytes())) for path in paths]


def _lesson(name: str, cells: list[Cell]) -> Lesson:
    found, heading = [], None
    for place, (cell, after) in enumerate(pairwise(cells)):
        heading = _HEADING.search(cell.source) or heading if not cell.is_code else heading
        parts = stub_and_solution(cell.source, after.source) if cell.is_code else None
        if parts is None or heading is None:
            continue
        checks = (CHECK.search(later.source) for later in cells[place + 2 :] if later.is_code)
        check = next(match for match in checks if match)
        title = heading[2].strip().rstrip("?")
        found.append(Exercise(int(heading[1]), title, check["argument"], check["check"], *parts))
    if not found:
        raise ConfigError(f"{name}: has no exercises; is it a notebook of the kit, as it ships?")
    return Lesson(name, tuple(found), tuple(cells))


# --- what answers are given, and what readings are judged by ------------------------------------------------------


def letters() -> Named:
    """The alphabet without the rest of the package."""
    v = VOCABULARY
    functions = {"encode": v.encode, "decode": v.decode, "index": v.index}
    return Named(items=v.symbols, symbols=v.symbols, blank=v.blank, boundary=v.boundary, **functions)


@cache
def _counts() -> Mapping[str, int]:
    """Parameters of the students in the table of notebook 03."""
    names = ("dt-waveform", "dt-fbank", "tiny-dt-waveform", "tiny-dt-fbank")
    with torch.device("meta"):
        return {name: parameter_count(SpeechModel(preset(name))) for name in names}


def _guesses() -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Predictions like those of notebook 02, their target and its mask."""
    h, p = torch.randn(2, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    named = {
        "the target itself": h,
        "twice the target": 2 * h,
        "the mean over all frames": h.flatten(0, 1).mean(0).expand_as(h),
        "the layer below": p,
        "minus the target": -h,
    }
    return named, h, torch.ones(2, 9, dtype=torch.bool)


READINGS: dict[str, Callable[[object], str]] = {  # those whose data are the same in every run
    "check_terms": lambda answer: distilling.read_terms(answer, *_guesses()),
    "check_saving": lambda answer: features.read_saving(answer, _counts()),
}
