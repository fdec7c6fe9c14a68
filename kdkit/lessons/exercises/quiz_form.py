"""The quiz as a form of plain HTML: named groups of radio buttons that arrow keys move in, replies that are read out.

The radio buttons of ipywidgets have neither names nor arrow keys, and their labels do not wrap.
"""

from __future__ import annotations

import anywidget
import traitlets

_SCRIPT = """
function made(tag, parent, html = "") {
  const element = document.createElement(tag);
  element.innerHTML = html;
  parent.append(element);
  return element;
}

function render({ model, el }) {
  el.classList.add("kdkit-quiz");
  el.dataset.lmSuppressShortcuts = "true";  // JupyterLab would go to another cell with the arrow keys,
  el.addEventListener("keydown", (event) => {  // and take the focus away from the buttons
    if (event.key.startsWith("Arrow") || event.key === " ") event.stopPropagation();
  });
  const group = `quiz-${Math.random().toString(36).slice(2)}`;  // a second view has groups of its own
  const replies = model.get("questions").map(({ text, choices }, number) => {
    const set = made("fieldset", el);
    made("legend", set, `<b>${number + 1}.</b> ${text}`);
    choices.forEach((choice, value) => {
      const label = made("label", set);
      const input = made("input", label);
      Object.assign(input, { type: "radio", name: `${group}-${number}` });
      input.checked = model.get("answers")[number] === value;
      input.addEventListener("change", () => {
        model.set("answers", { ...model.get("answers"), [number]: value });
        model.save_changes();
      });
      made("span", label, choice);
    });
    return made("output", set);
  });
  const score = made("p", el);
  const show = () => {
    replies.forEach((reply, number) => {
      const html = model.get("replies")[number] ?? "";
      if (reply.dataset.html !== html) {
        reply.innerHTML = reply.dataset.html = html;
      }
    });
    score.textContent = model.get("score");
  };
  const told = ["change:replies", "change:score"];
  for (const event of told) model.on(event, show);
  show();
  return () => told.forEach((event) => model.off(event, show));
}
export default { render };
"""

_STYLE = """
.kdkit-quiz { max-width: 46rem; line-height: 1.4; }
.kdkit-quiz fieldset { border: 0; margin: 0 0 .9rem; padding: 0; min-width: 0; }
.kdkit-quiz legend { padding: 0; margin-bottom: .2rem; }
.kdkit-quiz label { display: grid; grid-template-columns: auto 1fr; gap: .5em; padding: .15rem 0; cursor: pointer; }
.kdkit-quiz input { margin: .25em 0 0; align-self: start; }
.kdkit-quiz output:not(:empty) {
  display: block; border-left: 4px solid currentColor; padding: .1rem .7rem; margin-top: .2rem;
}
"""


class QuizForm(anywidget.AnyWidget):
    """``questions``: [{"text": HTML, "choices": [HTML]}]; ``answers``: {number of a question: number of the choice}, as
    text and number; ``replies``: {number of a question: HTML}; ``score``: text below all."""

    _esm = _SCRIPT
    _css = _STYLE
    questions = traitlets.List().tag(sync=True)
    answers = traitlets.Dict().tag(sync=True)
    replies = traitlets.Dict().tag(sync=True)
    score = traitlets.Unicode("").tag(sync=True)
