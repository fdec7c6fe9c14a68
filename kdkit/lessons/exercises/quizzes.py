"""The quiz at the end of a notebook: a form that answers at once, or a static page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

from kdkit.common.errors import ConfigError
from kdkit.lessons.exercises.questions import FILES, Question, questions


@dataclass(frozen=True)
class Reply:
    """The reply to an answer: right or not, and why."""

    right: bool
    because: str


def quiz(notebook: str) -> Quiz:
    """The quiz of a notebook, by its name: "01_teacher_probing". As the last line of a cell it shows itself."""
    if notebook not in FILES:
        raise ConfigError(f"no quiz for {notebook!r}: there are {', '.join(FILES)}")
    return Quiz(questions(notebook))


class Quiz:
    """Questions and what was answered: ``answers`` maps the number of a question to that of the choice.

    The state is plain Python; :meth:`form` is a thin shell around it, :meth:`still` a page without a kernel.
    """

    def __init__(self, asked: tuple[Question, ...]):
        self.questions, self.answers = asked, {}
        self._form = None

    def answer(self, question: int, choice: int) -> Reply:
        """Answers a question, both counted from 0; a later answer replaces an earlier one."""
        chosen = self.questions[question].choices[choice]
        self.answers[question] = choice
        return Reply(chosen.right, chosen.because)

    @property
    def right(self) -> int:
        """Questions whose latest answer is right."""
        return sum(self.questions[q].right == choice for q, choice in self.answers.items())

    def __repr__(self) -> str:
        return f"Quiz: {self.right} of {len(self.questions)} right, {len(self.answers)} answered"

    # --- the two forms ----------------------------------------------------------------------------------------

    def still(self) -> str:
        """HTML without a kernel: the questions, with the answers behind triangles."""
        parts = []
        for number, question in enumerate(self.questions, 1):
            choices = "".join(f"<li>{marked(c.text)}</li>" for c in question.choices)
            why = "".join(
                f"<li><b>{'Right' if c.right else 'No'}.</b> {marked(c.because)}</li>"
                for c in question.choices
            )
            parts.append(
                f'<p><b>{number}.</b> {marked(question.text)}</p><ol type="a">{choices}</ol>'
                f'<details><summary>Answer</summary><ol type="a">{why}</ol></details>'
            )
        return f'<div class="quiz">{"".join(parts)}</div>'

    def form(self):
        """The live quiz, a :class:`kdkit.lessons.exercises.quiz_form.QuizForm`, made on first use."""
        if self._form is None:
            self._form = _form(self)
        return self._form

    def _ipython_display_(self) -> None:
        """Shows widgets where there is a kernel, and the still form elsewhere."""
        from kdkit.lessons.widgets.still import show

        show(self.form(), {"text/html": self.still(), "text/plain": repr(self)})


def marked(text: str) -> str:
    """HTML of a text with `code` and *stress*."""
    parts = re.split(r"`([^`]+)`", escape(text))  # every second one is code
    stressed = [re.sub(r"\*([^*]+)\*", r"<em>\1</em>", part) for part in parts]
    return "".join(f"<code>{part}</code>" if i % 2 else stressed[i] for i, part in enumerate(parts))


def _form(quiz: Quiz):
    from kdkit.lessons.exercises.quiz_form import QuizForm

    asked = [{"text": marked(q.text), "choices": [marked(c.text) for c in q.choices]} for q in quiz.questions]
    form = QuizForm(questions=asked, score=_score(quiz))

    def answered(change) -> None:
        new = {q: choice for q, choice in change["new"].items() if change["old"].get(q) != choice}
        said = {q: _said(quiz.answer(int(q), choice)) for q, choice in new.items()}
        form.replies, form.score = form.replies | said, _score(quiz)

    form.observe(answered, "answers")
    return form


def _said(reply: Reply) -> str:
    return f"<b>{'✓ Right.' if reply.right else '✗ No.'}</b> {marked(reply.because)}"


def _score(quiz: Quiz) -> str:
    return f"{quiz.right} of {len(quiz.questions)} right"
