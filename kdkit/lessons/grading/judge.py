"""One notebook graded: every exercise of its lessons, run in a :class:`.process.Worker`, decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from kdkit.lessons.exercises.checking import CHANGED, NotWritten, Wrong, no_traceback, unchanged
from kdkit.lessons.grading.answers import Answer, belongs, find
from kdkit.lessons.grading.catalogue import READINGS, Exercise, Lesson
from kdkit.lessons.grading.notebooks import Cell
from kdkit.lessons.grading.process import Ended, Limits, Raised, TooLong, Worker
from kdkit.lessons.grading.wire import Named
from kdkit.model.codebook import Codebook

VERDICTS = {  # from the best to what says least; the first one counts where a learner handed in twice
    "right": "passes the kit's check on fresh random cases",
    "by hand": "read off the learner's own run, which nobody can repeat here: the answer is given, judge it yourself",
    "solution shown": "is the kit's own solution, as it is printed under the exercise",
    "wrong": "does not pass; the hint is the one that the check gives",
    "crashed": "raises an error, ends its process, or takes too much memory",
    "too long": "does not come to an end in time",
    "not answered": "is as it ships, returns None, or is not there",
    "unreadable": "is no notebook",
}


@dataclass(frozen=True)
class Row:
    """A line of the CSV. ``notebook``: the path within what was handed in."""

    learner: str
    lesson: str
    exercise: str
    verdict: str
    hint: str
    notebook: str
    fingerprint: str = ""


class Judge:
    """Grades notebooks, several at a time if called from several threads. ``hidden``: what their code must not read.

    ``holds`` is what confines their processes, once one has run: {"calls": ..., "files": ...}.
    """

    def __init__(self, lessons: Sequence[Lesson], hidden: Sequence[Path], limits: Limits | None = None):
        self.lessons, self.hidden, self.limits = lessons, hidden, limits or Limits()
        self.holds: dict[str, bool] | None = None
        self.stopped = False
        self._running: set[Worker] = set()

    def grade(self, cells: list[Cell]) -> list[tuple[str, str, str, str]]:
        """(lesson, exercise, verdict, hint) of every exercise of the lessons that the notebook belongs to."""
        rows = []
        with ExitStack() as stack:
            worker = None
            for lesson in self.lessons:
                for exercise in lesson.exercises if belongs(cells, lesson) else ():
                    answer = find(cells, exercise, lesson)
                    verdict, hint = answer.verdict, answer.hint
                    if not verdict and exercise.steps is None and exercise.check not in READINGS:
                        verdict, hint = "by hand", f"answer: {answer.value}"
                    elif not verdict:
                        worker = worker or stack.enter_context(self._worker())
                        verdict, hint = examine(worker, answer, exercise, lesson.given(exercise))
                    if worker and worker.gone:
                        worker = stack.close()
                    rows.append((lesson.name, exercise.label, verdict, _one_line(hint)))
        if self.stopped:  # what ran last may have been ended, and was no crash
            raise CancelledError
        return rows

    @contextmanager
    def _worker(self) -> Iterator[Worker]:
        if self.stopped:
            raise CancelledError
        worker = Worker(self.hidden, self.limits)
        self._running.add(worker)
        self.holds = worker.holds
        try:
            if self.stopped:  # meanwhile
                raise CancelledError
            yield worker
        finally:
            self._running.discard(worker)
            worker.close()

    def stop(self) -> None:
        """Ends what is running, at once, and begins nothing more: for Ctrl-C."""
        self.stopped = True
        for worker in list(self._running):
            worker.end()


def examine(worker: Worker, answer: Answer, exercise: Exercise, given: dict[str, object]) -> tuple[str, str]:
    """Verdict and hint of an answer. All that the worker says is taken as a value, and nothing as a verdict."""
    try:
        worker.begin()
        with no_traceback():
            value = worker.prepare(answer.parts, given, answer.name)
            if value is None:
                raise NotWritten(answer.name)
            if exercise.steps is None:
                READINGS[exercise.check](value)
            else:
                for _ in exercise.steps(_remote(worker, answer), np.random.default_rng()):
                    pass
    except NotWritten:
        return "not answered", "it returns None" if exercise.steps else "it is None"
    except TooLong:
        return (
            "too long",
            f"more than {worker.limits.seconds:g} seconds for all cases; does a loop never end?",
        )
    except Ended as error:
        worker.end()
        return "crashed", str(error)
    except Raised as error:
        return "crashed", str(error)
    except Wrong as wrong:
        return "wrong", str(wrong)
    finally:
        worker.rest()
    return "right", ""


def _remote(worker: Worker, answer: Answer) -> Callable:
    """The learner's function, as the steps of a check call it."""

    def call(*arguments):
        result, after = worker.call(answer.name, [_sent(argument) for argument in arguments])
        if result is None:
            raise NotWritten(answer.name)
        if len(after) != len(arguments):
            raise Ended("it writes what is no answer")
        for place, (before, now) in enumerate(zip(arguments, after)):
            if isinstance(before, (Tensor, np.ndarray, list, dict)) and not unchanged(before, now):
                parameter = (
                    answer.parameters[place] if place < len(answer.parameters) else f"number {place + 1}"
                )
                raise Wrong(CHANGED.format(name=answer.name, parameter=f"`{parameter}`"))
        return result

    return call


def _sent(argument: object) -> object:
    """A codebook without the function that is asked for."""
    if isinstance(argument, Codebook):
        names = ("final_proj", "label_embeddings", "tau")
        return Named(**{name: getattr(argument, name) for name in names})
    return argument


def _one_line(text: str, longest: int = 500) -> str:
    """A hint, which may hold what a learner's code says, as one line that can be printed."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    text = text[:1].upper() + text[1:]
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
