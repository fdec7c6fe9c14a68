"""A recorder: the browser's microphone, or a sound file, as samples in the kernel.

The samples come as messages. They are not part of the widget's state, so a saved notebook does not hold them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from kdkit.common.errors import KdkitError
from kdkit.speech.recording import LONGEST

INVITATION = (
    "Press Record and say the text, or choose a sound file. The sound goes to this notebook's kernel only."
)


class Recorder(anywidget.AnyWidget):
    """Buttons to record, to choose a file, to save and to forget, and a line that says how it went.

    ``heard(samples (n,), rate in Hz, seconds)`` gets a recording, of which the samples are the beginning where it was
    too long; ``save()`` and ``forget()`` are what the buttons do. Each returns what to say; a :class:`KdkitError` is
    said as a problem.
    """

    _esm = Path(__file__).with_suffix(".js")
    limit = traitlets.Float(LONGEST).tag(sync=True)  # seconds
    said = traitlets.Unicode(INVITATION).tag(sync=True)
    problem = traitlets.Bool(False).tag(sync=True)
    has_sound = traitlets.Bool(False).tag(sync=True)
    answers = traitlets.Int(0).tag(sync=True)  # a counter, whose change makes the page show the other three

    def __init__(
        self,
        heard: Callable[[np.ndarray, float, float], str],
        save: Callable[[], str],
        forget: Callable[[], str],
    ):
        super().__init__()
        self._heard, self._does, self._pieces = heard, {"save": save, "forget": forget}, []
        self.on_msg(self._received)

    def _received(self, _, content: dict, buffers: list[memoryview]) -> None:
        kind = content.get("kind")
        if kind in self._does:
            self.answer(self._does[kind])
        elif kind == "sound":
            self._pieces = self._pieces if content["part"] else []
            self._pieces.append(np.frombuffer(buffers[0], np.float32))
            if len(self._pieces) == content["parts"]:
                samples, self._pieces = np.concatenate(self._pieces), []
                self.answer(lambda: self._heard(samples, content["rate"], content["seconds"]))

    def answer(self, does: Callable[[], str]) -> None:
        """Does it, and shows what it returns, or the error that it raises."""
        try:
            said, problem = does(), False
        except KdkitError as error:
            said, problem = str(error), True
        with self.hold_sync():
            self.said, self.problem, self.answers = said, problem, self.answers + 1
