"""Files that are whole or not there at all, and folders in which one process works at a time.

Every writer of the kit goes through this module, so a disk that is full or a place that may not be written to ends in
one :class:`kdkit.common.errors.OutputError` that names it, and :func:`check_output` finds it before the work is done.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import platform
import re
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from kdkit.common.errors import ConfigError, KdkitError, OutputError

LOCK = ".lock"
PARTIAL = ".partial"  # in the names of files that are being written
_FRESH = 60.0  # seconds: a partial file this young may be of a process in another container
_numbers = itertools.count()
_held: dict[tuple[Path, int], FileLock] = {}  # by folder and thread

_REASONS = {
    errno.ENOSPC: "the disk is full: make room, or choose another place",
    errno.EDQUOT: "your disk quota is used up: make room, or choose another place",
    errno.EFBIG: "larger than a file may be here (ulimit -f): raise the limit, or choose another place",
    errno.EACCES: "no permission to write there: choose another place",
    errno.EPERM: "no permission to write there: choose another place",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENOTDIR: "part of its path is a file: choose another place",
    errno.EEXIST: "a file is where a folder is needed: choose another place",
    errno.EISDIR: "it is a folder: name a file",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.ELOOP: "its links lead in a circle: choose another place",
}

DISK = frozenset(_REASONS) - {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}  # no use in trying again


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write(temporary_path)``, then moves the result to ``path``: a reader never sees half a file.

    Raises :class:`OutputError` where that is not possible; what was at ``path`` before is still there.
    """
    write_together({path: write})


def write_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """:func:`write_atomically` for files that belong together: when one cannot be written, all stay as they were."""
    temporary = {Path(path): partial_name(Path(path)) for path in writers}
    try:
        for (path, partial), write in zip(temporary.items(), writers.values(), strict=True):
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                _sweep_once(path.parent)
                partial.touch()
                mode = (
                    partial.stat().st_mode
                )  # as the umask has it; some libraries write for their owner only
                write(partial)
                partial.chmod(mode)
                with open(partial, "rb+") as file:
                    os.fsync(file.fileno())
        for path, partial in temporary.items():
            with writing(path):
                os.replace(partial, path)
    finally:
        for partial in temporary.values():
            with suppress(OSError):
                partial.unlink(missing_ok=True)


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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    return _digest(path, hashlib.sha256())


def md5_of(path: Path) -> str:
    """MD5 of a file, as hexadecimal digits: against damage, not against forgery."""
    return _digest(path, hashlib.md5(usedforsecurity=False))


def _digest(path: Path, digest) -> str:
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within, a failure of the file system is raised as an :class:`OutputError` that names ``path`` and what to do."""
    try:
        yield
    except KdkitError:
        raise
    except Exception as error:
        number = _errno(error)
        if number is None:
            raise
        reason = _REASONS.get(number) or os.strerror(number)
        raise OutputError(f"{path}: cannot be written: {reason}") from error


def check_output(path: Path, folder: bool = False) -> Path:
    """``path``, if a file can be written there (``folder``: if files can be written in it). Leaves nothing behind.

    Raises :class:`OutputError`, before any work whose result would have nowhere to go.
    """
    path = Path(path)
    with writing(path):
        if not folder and path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        place, missing = path if folder else path.parent, []
        while not place.is_dir() and not os.path.lexists(place):
            missing.append(place)
            place = place.parent
        try:
            for made in reversed(missing):
                made.mkdir()
            with suppress(FileNotFoundError):
                path.lstat()  # a name that is too long
            probe = partial_name((path if folder else path.parent) / "probe")
            try:
                probe.write_bytes(b"0")
            finally:
                probe.unlink(missing_ok=True)
        finally:
            for made in missing:
                if made.is_dir():
                    made.rmdir()
    return path


class GrowingFile:
    """A text file that grows line by line beside its place, as ``NAME.part``, and moves there when it is whole.

    A piece has left this process when :meth:`add` returns: what was done stays after a kill, and on a full disk.
    """

    def __init__(self, path: Path):
        self.path, self.part = Path(path), Path(f"{path}.part")
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.part, "wb")  # noqa: SIM115 (closed by finish and __exit__)

    def add(self, text: str) -> None:
        """Appends ``text``, all of it or nothing."""
        before = self._file.tell()
        try:
            with writing(self.path):
                self._file.write(text.encode("utf-8", "backslashreplace"))
                self._file.flush()
        except OutputError as error:
            self._file = open(self.part, "rb+")  # noqa: SIM115 (a buffer that could not be flushed is given up)
            self._file.truncate(before)
            raise OutputError(f"{error}; what was done is in {self.part}") from error

    def __enter__(self) -> GrowingFile:  # noqa: PYI034 (typing.Self needs Python 3.11)
        return self

    def __exit__(self, kind, error, trace) -> None:
        with writing(self.path):
            if kind is None:
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                os.replace(self.part, self.path)
            elif not self.part.stat().st_size:
                self.part.unlink()
            elif not isinstance(error, OutputError):
                print(f"what was done is in {self.part}", file=sys.stderr)


@contextmanager
def alone(folder: Path, what: str = "training") -> Iterator[None]:
    """Within, no other process, and no other thread, works in ``folder``, which is made; calls may be nested.

    Raises :class:`ConfigError` when another one is there. The lock ends with its process, however that ends.
    """
    folder = Path(folder)
    key = (folder.resolve(), threading.get_ident())
    if key in _held:
        yield
        return
    lock = FileLock(folder / LOCK)
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{folder}: another {what} is running there; wait for its end, or choose another folder"
        ) from None
    except NotImplementedError:
        warnings.warn(f"{folder}: this file system has no locks: start one {what} at a time", stacklevel=3)
    _held[key] = lock
    try:
        yield
    finally:
        del _held[key]
        lock.release()  # the file stays: removing it would let two hold a lock at once


def partial_name(path: Path) -> Path:
    """Where this process writes what becomes ``path``: a hidden name beside it, with the same ending."""
    own = f"{platform.node()}-{os.getpid()}-{next(_numbers)}{PARTIAL}"
    return path.with_name(f".{path.stem[:20]}.{own}{path.suffix[:16]}")


def sweep(folder: Path) -> None:
    """Removes files and folders that processes of this machine were writing in ``folder`` when they were killed."""
    mine = re.compile(rf"\..*\.{re.escape(platform.node())}-(\d+)-\d+{re.escape(PARTIAL)}(\..*)?$")
    for entry in os.scandir(folder):
        found = mine.fullmatch(entry.name)
        if not found or psutil.pid_exists(int(found[1])):
            continue
        try:
            if time.time() - entry.stat().st_mtime > _FRESH:
                shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)
        except OSError:  # another process was faster, or it is not ours to remove
            continue


@cache
def _sweep_once(folder: Path) -> None:
    sweep(folder)


def _errno(error: Exception) -> int | None:
    """The number of a system error, also of one that a library in Rust has put into words."""
    if isinstance(error, OSError):
        return error.errno
    said = re.search(r"\(os error (\d+)\)", str(error))
    return int(said[1]) if said else None


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
