"""What is kept is shown: a collector of results that also displays them under the cell of a notebook."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from IPython.display import HTML, Audio, Markdown, display
from torch import Tensor

from kdkit.common.statistics import Comparison
from kdkit.lessons import sentences
from kdkit.lessons.experiments import (
    Finding,
    steps_in,
    study_rows,
    study_trials,
    summary,
)
from kdkit.lessons.plots.page import image_html
from kdkit.lessons.plots.style import Picture, in_numbers
from kdkit.lessons.plots.systems import change_curves
from kdkit.lessons.results import Results
from kdkit.speech.frames import SAMPLE_RATE


class Display(Results):
    """A :class:`kdkit.lessons.results.Results`: ``figure(...)`` shows the figure and saves it in the run folder."""

    def figure(self, name: str, figure, caption: str, alt: str = "", **options) -> None:
        """Shows a matplotlib figure under the cell and saves it for the report."""
        alt = alt or f"{caption} {in_numbers(figure)}".strip()
        super().figure(name, figure, caption, alt, **options)
        _close(figure)
        display(Markdown(caption))
        metadata = {"image/png": {"alt": alt}}
        if isinstance(figure, Picture):
            light, dark = figure._repr_png_(), figure.in_the_dark()._repr_png_()
            shown = {"text/html": image_html(light, alt, dark), "text/plain": alt}
            shown["image/png"] = base64.b64encode(light).decode("ascii")
            display(shown, raw=True, metadata=metadata)
        else:
            display(figure, metadata=metadata)

    def audio(self, name: str, wave: Tensor, caption: str) -> None:
        """A player under the cell, and the sound for the report. ``wave`` (samples,) at 16 kHz."""
        super().audio(name, wave, caption)
        display(Markdown(caption), Audio(wave.numpy(), rate=SAMPLE_RATE))

    def table(self, name: str, rows: Sequence[Mapping[str, object]], caption: str) -> None:
        """A table under the cell and in the report: one mapping per row, the first one's keys are the columns."""
        super().table(name, rows, caption)
        lines = [
            list(rows[0]),
            ["---"] * len(rows[0]),
            *([row.get(key, "") for key in rows[0]] for row in rows),
        ]
        text = "\n".join(
            "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
        )
        display(Markdown(f"{caption}\n\n{text}"))

    def page(self, name: str, fragment: str, caption: str) -> None:
        """A piece of HTML under the cell and in the report."""
        super().page(name, fragment, caption)
        display(HTML(fragment))

    def widget(self, name: str, panel, caption: str) -> None:
        """A :class:`kdkit.lessons.widgets.Panel` under the cell; its initial picture for the report."""
        figure = panel.figure()
        super().figure(name, figure, f"{caption} In the notebook it moves.", alt=panel.alt())
        display(Markdown(caption))
        display(panel)

    def verdict(self, name: str, outcome: str, text: str) -> None:
        """A conclusion that a cell computed (of a comparison: :meth:`compare`): shown, and kept for the report."""
        super().verdict(name, outcome, text)
        display(Markdown(f"**{name}: {outcome}.** {text}"))

    def study(self, name: str, findings: Sequence[Finding], caption: str, source: str = "run") -> None:
        """The trials of an experiment as a table: each one's measure over its seeds, and what it changes against the
        first trial, with the verdict.

        Kept as metrics: ``name/TRIAL`` and ``name/TRIAL against FIRST``, followed by ", N steps" where a study has
        trials of several lengths; then a figure and a sentence say what the length changes.
        """
        if not findings:
            return
        first, several = findings[0].name, len(steps_in(findings)) > 1
        changes: dict[str, dict[int, Comparison]] = {}
        for trial, steps, change in study_trials(findings):
            after = f", {steps:,} steps" if several else ""
            found = summary(findings, trial, steps=steps)
            self.metric(f"{name}/{trial}{after}", found.value, found.interval, "share", source)
            if change:
                self.difference(f"{name}/{trial} against {first}{after}", change, source)
                changes.setdefault(trial, {})[steps] = change
        self.table(name, study_rows(findings), caption)
        if several:
            changes = {trial: of_trial for trial, of_trial in changes.items() if len(of_trial) > 1}
            points = {
                trial: [(steps, change.difference, *change.interval) for steps, change in of_trial.items()]
                for trial, of_trial in changes.items()
            }
            figure = change_curves(points, first, findings[0].measure, "steps of training")
            caption = (
                f"What each trial changes against “{first}” when all are trained for longer; 95 % intervals."
            )
            self.figure(f"{name}, over steps", figure, caption)
            self.text(f"{name}, over steps", sentences.over_steps(changes, first))

    def text(self, name: str, text: str) -> None:
        """A paragraph under the cell and in the report."""
        super().text(name, text)
        display(Markdown(text))

    def note(self, name: str, text: str) -> None:
        """A paragraph for the report alone: who calls has printed it."""
        super().text(name, text)


def _close(figure) -> None:
    """Closes the figure in pyplot, which would show it a second time."""
    import matplotlib.pyplot as plt

    plt.close(figure)
