"""Ctrl-C and SIGTERM (which schedulers send before they kill a process) end a training cleanly."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """A training was stopped; the message says after which step, and whether it was saved."""


@contextlib.contextmanager
def patient_interrupt() -> Iterator[list[bool]]:
    """Within, the first Ctrl-C or SIGTERM only makes the yielded list non-empty, for the loop to stop after the step.

    A second one raises KeyboardInterrupt at once.
    """
    asked: list[bool] = []

    def note(signum, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(True)

    before = {}
    try:
        with contextlib.suppress(ValueError):  # only the main thread receives signals
            for number in SIGNALS:
                before[number] = signal.signal(number, note)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminate_as_interrupt() -> None:
    """Makes SIGTERM raise KeyboardInterrupt, as Ctrl-C does, so that files are closed and locks released."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
