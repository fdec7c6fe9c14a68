"""Entry point of the command line. The commands are in :mod:`kdkit.commands`.

A :class:`kdkit.common.errors.KdkitError` ends in one line, ``error: ...``, and exit status 2.
"""

from __future__ import annotations

import io
import sys
import warnings
from importlib import import_module

from kdkit.commands import app
from kdkit.common.errors import KdkitError
from kdkit.training.interrupt import terminate_as_interrupt

# In the order of kdkit --help.
MODULES = (
    "reports",
    "grading",
    "speech",
    "preparing",
    "aligning",
    "models",
    "front_ends",
    "distilling",
    "finetuning",
    "language",
    "recognising",
    "exporting",
    "speed",
)

for name in MODULES:
    import_module(f"kdkit.commands.{name}")


_whole_warning = warnings.formatwarning


def plain_warning(message: Warning | str, category: type[Warning], *place: object) -> str:
    """A ``UserWarning`` as "note: ..." without file and line; other warnings as Python formats them."""
    return f"note: {message}\n" if category is UserWarning else _whole_warning(message, category, *place)


def main() -> None:
    """Entry point of the ``kdkit`` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escapes characters that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = plain_warning
    terminate_as_interrupt()
    try:
        app()
    except KdkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
