"""What the ``kdkit`` command and the scripts in ``data_scripts`` share: an error is one line, Ctrl-C no traceback."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable

from kdkit.common.errors import KdkitError
from kdkit.training.interrupt import TrainingInterrupted, terminate_as_interrupt

_whole_warning = warnings.formatwarning


def plain_warning(message: Warning | str, category: type[Warning], *place: object) -> str:
    """A ``UserWarning`` as "note: ..." without file and line; other warnings as Python formats them."""
    return f"note: {message}\n" if category is UserWarning else _whole_warning(message, category, *place)


def run(main: Callable[[], object]) -> None:
    """Calls ``main`` as a command. A :class:`KdkitError` ends in one line, ``error: ...``, and exit status 2; Ctrl-C or
    SIGTERM in one, which says of a training what is kept, and exit status 130.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escapes characters that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = plain_warning
    terminate_as_interrupt()
    try:
        main()
    except KdkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except TrainingInterrupted as stop:  # it says after which step, and whether it was saved
        print(f"\n{stop}: the same command goes on from what is kept", file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
