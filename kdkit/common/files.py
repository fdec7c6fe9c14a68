"""Atomic writing, and folders in which one process works at a time.

All files that kdkit writes go through this module: a full disk or a missing permission ends in one
:class:`kdkit.common.errors.OutputError` that names the file, and :func:`check_output` finds it before the work begins.
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
_FRESH = 60.0  # seconds: a younger partial file may belong to a process in another container
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

DISK = frozenset(_REASONS) - {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}  # retrying is useless


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write(temporary_path)``, then renames the result to ``path``: readers never see an incomplete file.

    Raises :class:`OutputError` if that fails; an earlier file at ``path`` is then unchanged.
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
                mode = partial.stat().st_mode  # of the umask: some libraries write private files
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
    """Writes ``text`` atomically as UTF-8, without changing line ends.

    Invalid Unicode, from a file name for instance, becomes an escape such as \\udce9, which JSON can read back.
    """
    data = text.encode("utf-8", errors="backslashreplace")
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def read_text(path: Path, error: type[KdkitError], missing: str = "no such file; check the path") -> str:
    """The text of a UTF-8 file, without byte order mark, with line ends "\\n".

    Raises ``error`` that names the file if it does not exist (``missing`` says what to do) or is not UTF-8.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # reading a pipe could block forever
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
    """Within, errors of the file system become an :class:`OutputError` that names ``path`` and says what to do."""
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


def free_bytes(folder: Path) -> int:
    """Free space of the disk that ``folder`` is on, or will be; 0 where there is no such disk."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    return shutil.disk_usage(there).free if there else 0


def check_output(path: Path, folder: bool = False) -> Path:
    """Returns ``path`` if a file can be written there (``folder``: if files can be written in it). Leaves no trace.

    Raises :class:`OutputError` otherwise, before work is done whose result cannot be saved.
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
    """A text file that is written line by line as ``NAME.part`` and renamed to ``NAME`` when it is complete.

    :meth:`add` flushes: what was added survives a kill and a full disk.
    """

    def __init__(self, path: Path):
        self.path, self.part = Path(path), Path(f"{path}.part")
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.part, "wb")  # noqa: SIM115 (closed by finish and __exit__)

    def add(self, text: str) -> None:
        """Appends ``text`` completely or, with an :class:`OutputError`, not at all."""
        before = self._file.tell()
        try:
            with writing(self.path):
                self._file.write(text.encode("utf-8", "backslashreplace"))
                self._file.flush()
        except OutputError as error:
            self._file = open(self.part, "rb+")  # noqa: SIM115 (drops the buffer that could not be flushed)
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
    """Locks ``folder``, which is created, for this thread; calls may be nested.

    Raises :class:`ConfigError` when another process or thread holds the lock. It is released with its process, however
    that ends.
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
        lock.release()  # keep the lock file: removing it would let two processes hold a lock


def partial_name(path: Path) -> Path:
    """A temporary name beside ``path`` for this process: hidden, with the same suffix."""
    own = f"{platform.node()}-{os.getpid()}-{next(_numbers)}{PARTIAL}"
    return path.with_name(f".{path.stem[:20]}.{own}{path.suffix[:16]}")


def sweep(folder: Path) -> None:
    """Removes temporary files and folders of killed processes of this machine from ``folder``."""
    mine = re.compile(rf"\..*\.{re.escape(platform.node())}-(\d+)-\d+{re.escape(PARTIAL)}(\..*)?$")
    for entry in os.scandir(folder):
        found = mine.fullmatch(entry.name)
        if not found or psutil.pid_exists(int(found[1])):
            continue
        try:
            if time.time() - entry.stat().st_mtime > _FRESH:
                shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)
        except OSError:  # removed by another process, or not ours
            continue


@cache
def _sweep_once(folder: Path) -> None:
    sweep(folder)


def _errno(error: Exception) -> int | None:
    """The errno of an error, also of one that a Rust library has turned into text; None if it has none."""
    if isinstance(error, OSError):
        return error.errno
    said = re.search(r"\(os error (\d+)\)|Os \{ code: (\d+),", str(error))  # the latter of safetensors 0.4
    return int(said[1] or said[2]) if said else None


def cache_folder() -> Path:
    """The folder for downloads and corpora: $KDKIT_CACHE, or ~/.cache/kdkit."""
    return Path(os.environ.get("KDKIT_CACHE") or Path.home() / ".cache" / "kdkit")


def is_file(path: Path) -> bool:
    """True if ``path`` is a regular file; False, not an error, for names that are too long or not readable."""
    return os.path.isfile(path)


def stand_in(path: Path) -> str | None:
    """Describes a file that is not what it should be: a Git-LFS pointer, a web page, empty; None if it looks fine."""
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
