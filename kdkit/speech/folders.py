"""The audio files in a folder, by the endings of :data:`kdkit.speech.audio.ENDINGS`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from kdkit.speech.audio import ENDINGS


@dataclass
class Contents:
    """All files below a folder except hidden ones (.name), sorted, and (sub-folder, reason) of unreadable folders."""

    audio: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    closed: list[tuple[Path, str]] = field(default_factory=list)

    def passed_over(self) -> list[tuple[str, str]]:
        """(file, reason) of files that are neither audio nor a text beside it, and of unreadable sub-folders."""
        beside = {path.with_suffix("") for path in self.audio}
        return [(str(path), f"{path}: {reason}") for path, reason in self.closed] + [
            (str(path), f"{path}: passed over: {path.suffix or 'no ending'} is not an ending of audio files")
            for path in self.others
            if path.with_suffix("") not in beside and not path.name.endswith(".trans.txt")
        ]


def contents(folder: str | Path, endings: Collection[str] = ENDINGS) -> Contents:
    """Lists the files below ``folder``, without opening any; links to folders are not followed."""
    found = Contents()

    def closed(error: OSError) -> None:
        found.closed.append((Path(error.filename), f"cannot be looked into: {error.strerror or error}"))

    for place, folders, files in os.walk(folder, onerror=closed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                path = Path(place, name)
                (found.audio if path.suffix.lower() in endings else found.others).append(path)
    found.audio.sort()
    found.others.sort()
    found.closed.sort()
    return found


def by_ending(paths: Collection[str]) -> str:
    """Counts of endings, such as "3 .jpg, 1 .docx", most frequent first."""
    counted = Counter(os.path.splitext(path)[1].lower() or "without ending" for path in paths)
    return ", ".join(f"{number} {ending}" for ending, number in counted.most_common(8))
