"""Progress bars: tqdm's, in a notebook on standard output, because notebooks give standard error a red background."""

from __future__ import annotations

import sys

from tqdm import tqdm as _tqdm


def in_notebook() -> bool:
    """Does a Jupyter kernel read what this process prints?"""
    return type(sys.stdout).__module__.startswith("ipykernel")


class tqdm(_tqdm):
    """tqdm's own bar, which takes the same arguments."""

    def __init__(self, *args, file=None, **options):
        super().__init__(*args, file=file or (sys.stdout if in_notebook() else None), **options)
