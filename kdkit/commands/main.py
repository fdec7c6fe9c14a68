"""Entry point of the command line. The commands are in :mod:`kdkit.commands`."""

from __future__ import annotations

from importlib import import_module

from kdkit.commands import app
from kdkit.commands.running import run

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


def main() -> None:
    """Entry point of the ``kdkit`` command."""
    run(app)


if __name__ == "__main__":
    main()
