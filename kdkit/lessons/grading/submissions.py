"""What learners handed in: notebooks in folders, in files, and in the archives that learning platforms give out."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kdkit.common.errors import ConfigError

LARGEST = 100 << 20  # bytes of a notebook, figures included, or of an archive in an archive
_SKIPPED = re.compile(r"(^|/)(\.[^/]*|__MACOSX)(/|$)")  # .ipynb_checkpoints, and what macOS adds

# names of learners in names that platforms make
_PLATFORMS = (
    re.compile(r"^(?P<learner>.+?)_\d+_assignsubmission_"),  # Moodle
    re.compile(r"^(?P<learner>[^\W_]+)(?:_LATE)?_\d+_\d+_"),  # Canvas
    re.compile(r"_(?P<learner>[^_]+)_attempt_\d{4}-\d\d-\d\d"),  # Blackboard
)


@dataclass(frozen=True)
class Submission:
    """A notebook of a ``learner``; ``path`` says where it lay. ``trouble``: why there is no ``data``."""

    learner: str
    path: str
    data: bytes = b""
    trouble: str = ""


def collect(places: Iterable[Path], lessons: Iterable[str] = ()) -> list[Submission]:
    """All notebooks in folders (with their subfolders), archives and files, in the order of learners and paths.

    A learner is called as the first folder beneath the place, or as the file without the name of a lesson
    (``lessons``); names that Moodle, Canvas and Blackboard give are understood. Raises :class:`ConfigError` where there
    is no such place, and where there is no notebook in any.
    """
    places, found = [Path(place) for place in places], []
    for place in places:
        if not place.exists():
            raise ConfigError(f"{place}: no such file or folder; check the path")
        found += (
            _in_folder(place) if place.is_dir() else _in_file(place.name, place.read_bytes(), of_class=True)
        )
    if not found:
        where = ", ".join(map(str, places))
        raise ConfigError(
            f"{where}: no notebooks (.ipynb) there, nor in subfolders and archives; name the folder, the .zip or the "
            "files that were handed in"
        )
    made, seen = [], Counter()
    for path, data, trouble in found:
        seen[path] += 1
        place = path if seen[path] == 1 else f"{path} [{seen[path]}]"  # of another folder or archive
        made.append(Submission(_learner(PurePosixPath(path), tuple(lessons)), place, data, trouble))
    return sorted(made, key=lambda s: (s.learner.casefold(), s.path))


Found = tuple[str, bytes, str]  # path, content, trouble


def _in_folder(folder: Path) -> Iterator[Found]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() not in (".ipynb", ".zip") or _SKIPPED.search(name) or not path.is_file():
            continue
        try:
            if path.stat().st_size > LARGEST:
                raise OSError(f"larger than {LARGEST >> 20} MB")
            data = path.read_bytes()
        except OSError as error:
            yield name, b"", f"cannot be read: {error.strerror or error}"
            continue
        yield from _in_file(name, data)


def _in_file(name: str, data: bytes, depth: int = 0, of_class: bool = False) -> Iterator[Found]:
    """A notebook as it is; of an archive all notebooks, those of archives in it, too.

    An archive ``of_class``, or with several folders, has learners in it; any other is a learner's.
    """
    if not name.lower().endswith(".zip"):
        yield name, data, ""
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {e.filename.replace("\\", "/"): e for e in archive.infolist() if not e.is_dir()}
            inner = [n for n in entries if n.lower().endswith((".ipynb", ".zip")) and not _SKIPPED.search(n)]
            wrapped = _is_wrapper(inner, PurePosixPath(name).stem)
            folders = {n.split("/")[wrapped] for n in inner if n.count("/") > wrapped}
            of_class = of_class or ("/" not in name and len(folders) > 1)
            for each in inner:
                path = each.partition("/")[2] if wrapped else each
                path = path if of_class else f"{name[: -len('.zip')]}/{path}"
                if entries[each].file_size > LARGEST or depth > 1:
                    yield path, b"", f"larger than {LARGEST >> 20} MB, or too deep in archives"
                else:
                    yield from _in_file(path, archive.read(entries[each]), depth + 1)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, zlib.error) as error:
        yield name, b"", f"the archive cannot be read: {error}"


def _is_wrapper(names: list[str], archive: str) -> bool:
    """Is the one folder in an archive only the one that was packed, and no learner's?"""
    parts = [name.split("/") for name in names]
    if len({part[0] for part in parts}) != 1 or min(map(len, parts)) < 2:
        return False
    return parts[0][0] == archive or len({part[1] for part in parts if len(part) > 2}) > 1


def _learner(path: PurePosixPath, lessons: tuple[str, ...]) -> str:
    """The name of whoever handed a file in, as far as its path tells."""
    folder = path.parts[0] if len(path.parts) > 1 else ""
    name = folder or path.stem
    for pattern in _PLATFORMS:
        if match := pattern.search(name):
            return match["learner"].strip()
    if folder:
        return folder
    name = name.removeprefix("Copy of ")  # Colab
    for lesson in lessons:
        name = re.sub(rf"[\s_.-]*{re.escape(lesson)}([\s_.-]*\(?\d*\)?$)?[\s_.-]*", "", name)
    return name.strip(" ()[]") or path.stem
