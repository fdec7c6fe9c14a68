"""Files that are whole or not there at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from kdkit.errors import KdkitError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write(temporary_path)``, then moves the result to ``path``: a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 ``text`` atomically, with the line ends as they are on every system.

    What is not Unicode, from a file's name for instance, becomes an escape such as \\udce9, which JSON reads back.
    """
    data = text.encode("utf-8", errors="backslashreplace")
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def read_text(path: Path, error: type[KdkitError], missing: str = "no such file; check the path") -> str:
    """The text of a UTF-8 file, without a byte order mark, its line ends as "\\n".

    Raises ``error``, naming the file, when it is not there (``missing`` says what to do) or not UTF-8.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe that nobody writes to would wait for ever
            raise OSError("it is a folder or a pipe, not a file")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise error(f"{path}: {missing}") from None
    except UnicodeDecodeError as problem:
        raise error(f"{path}: cannot be read as UTF-8 text ({problem}); save it as UTF-8") from None
    except (OSError, ValueError) as problem:
        raise error(f"{path}: cannot be read ({problem})") from problem


def cache_folder() -> Path:
    """Where downloads and corpora are kept: $KDKIT_CACHE, or ~/.cache/kdkit."""
    return Path(os.environ.get("KDKIT_CACHE") or Path.home() / ".cache" / "kdkit")


def is_file(path: Path) -> bool:
    """Is there a regular file? False, not an error, for a name that is too long and in a folder that is closed."""
    return os.path.isfile(path)


def stand_in(path: Path) -> str | None:
    """What lies at ``path`` in place of the file that was meant, in words; None where nothing is known of it."""
    try:
        with open(path, "rb") as file:
            start = file.read(512).lstrip()
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git-LFS pointer, not the file itself: run git lfs pull"
    if start[:9].lower() == b"<!doctype" or start[:5].lower() == b"<html":
        return "a web page, not the file itself: the download was given a page"
    return None if start else "an empty file: it was truncated"
