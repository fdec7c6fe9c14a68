"""The quiz at the end of a notebook: radio buttons that answer at once, or a static page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

from kdkit.common.errors import ConfigError
from kdkit.lessons.exercises.questions import FILES, Question, questions

STYLE = (  # radio buttons of ipywidgets do not wrap by themselves
    "<style>.kdkit-quiz .widget-radio-box label { height: auto; white-space: normal; line-height: 1.35; "
    "margin-bottom: 4px; align-items: flex-start; }</style>"
)


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

    The state is plain Python; :meth:`box` is a thin shell of widgets around it, :meth:`still` a page without any.
    """

    def __init__(self, asked: tuple[Question, ...]):
        self.questions, self.answers = asked, {}
        self._box = None

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

    def box(self):
        """The quiz as an ipywidgets box, made on first use."""
        if self._box is None:
            self._box = _box(self)
        return self._box

    def _ipython_display_(self) -> None:
        """Shows widgets where there is a kernel, and the still form elsewhere."""
        from kdkit.lessons.widgets.still import show

        show(self.box(), {"text/html": self.still(), "text/plain": repr(self)})


def marked(text: str) -> str:
    """HTML of a text with `code` and *stress*."""
    parts = re.split(r"`([^`]+)`", escape(text))  # every second one is code
    stressed = [re.sub(r"\*([^*]+)\*", r"<em>\1</em>", part) for part in parts]
    return "".join(f"<code>{part}</code>" if i % 2 else stressed[i] for i, part in enumerate(parts))


def _box(quiz: Quiz):
    import ipywidgets as widgets

    score = widgets.HTML(_score(quiz))
    rows = [widgets.HTML(STYLE)]
    for number, question in enumerate(quiz.questions):
        text = widgets.HTML(
            f"<p style='margin: 12px 0 2px; line-height: 1.4'><b>{number + 1}.</b> {marked(question.text)}</p>"
        )
        plain = [re.sub(r"[*`]", "", choice.text) for choice in question.choices]
        buttons = widgets.RadioButtons(
            options=list(zip(plain, range(len(plain)))), index=None, layout=widgets.Layout(width="auto")
        )
        if buttons.has_trait("tooltip"):  # ipywidgets 8: the name that a screen reader reads
            buttons.tooltip = f"Choices of question {number + 1}"
        reply = widgets.HTML()

        def chosen(change, number=number, reply=reply):
            if change["new"] is not None:
                reply.value = _said(quiz.answer(number, change["new"]))
                score.value = _score(quiz)

        buttons.observe(chosen, "value")
        rows += [text, buttons, reply]
    box = widgets.VBox([*rows, score], layout=widgets.Layout(max_width="46rem"))
    box.add_class("kdkit-quiz")
    return box


def _said(reply: Reply) -> str:
    colour, mark = ("#0b66b3", "✓ Right.") if reply.right else ("#b85c00", "✗ No.")
    style = f"border-left: 4px solid {colour}; padding: 2px 10px; margin: 2px 0 6px; line-height: 1.4; "
    style += "background: white; color: #1d2530"  # readable in a dark theme, too
    return f'<div style="{style}"><b style="color: {colour}">{mark}</b> {marked(reply.because)}</div>'


def _score(quiz: Quiz) -> str:
    return f"<p style='margin-top: 12px'>{quiz.right} of {len(quiz.questions)} right</p>"
