"""The questions of the quizzes, a file for each notebook.

A question has choices, one of them right, and every choice says why it is right or wrong. Text between `backticks` is
shown as code. Nothing depends on the numbers of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from zlib import crc32


@dataclass(frozen=True)
class Choice:
    text: str
    because: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    text: str
    choices: tuple[Choice, ...]

    @property
    def right(self) -> int:
        """Number of the right choice."""
        return next(i for i, choice in enumerate(self.choices) if choice.right)


def yes(text: str, because: str) -> Choice:
    """The right choice."""
    return Choice(text, because, right=True)


def no(text: str, because: str) -> Choice:
    """A wrong choice."""
    return Choice(text, because)


def ask(text: str, *choices: Choice) -> Question:
    """A question; its choices are put in an order that their texts decide, so that the right one may stand anywhere."""
    return Question(text, tuple(sorted(choices, key=lambda choice: crc32(choice.text.encode()))))


FILES = {
    "01_teacher_probing": "teacher_probing",
    "02_distillation": "distillation",
    "03_fbank_front_end": "fbank_front_end",
    "04_low_resource_finetuning": "low_resource_finetuning",
}


def questions(notebook: str) -> tuple[Question, ...]:
    """The questions of the notebook of that name."""
    return import_module(f"{__name__}.{FILES[notebook]}").QUESTIONS
