"""Ctrl-C, and SIGTERM, which schedulers and hosts send before they stop a process: both end a training well."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def patient_interrupt() -> Iterator[list[bool]]:
    """The first Ctrl-C or SIGTERM waits for the end of the step: it fills the list that this gives. A second one does
    not wait.
    """
    asked: list[bool] = []

    def note(signum, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(True)

    before = {}
    try:
        with contextlib.suppress(ValueError):  # not the main thread: no signal arrives here
            for number in SIGNALS:
                before[number] = signal.signal(number, note)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminate_as_interrupt() -> None:
    """From here on SIGTERM raises KeyboardInterrupt as Ctrl-C does, so that what is open is closed and cleaned up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
