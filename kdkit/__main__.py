"""``python -m kdkit`` is the ``kdkit`` command."""

from kdkit.cli import main

main()
