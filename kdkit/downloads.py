"""Large files from the network: with a progress bar, resumed where they broke off, checked, whole or not there.

What has arrived is kept as ``NAME.part``; the next attempt, also in another run, goes on there if the server still has
the same file. Several processes that want one file fetch it once: the others wait.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from kdkit.errors import DownloadError
from kdkit.files import write_text

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # in a row that bring nothing new
_CHUNK = 1 << 20
_BROKEN = (OSError, http.client.HTTPException)  # what a connection that breaks off raises
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)  # no use in trying again


def download(url: str, path: Path, sha256: str | None = None, wait: float = 1.0) -> Path:
    """``path``, fetched from ``url`` unless it is there already.

    With ``sha256`` given, a file that has another checksum is refused and removed; without, the checksum is printed, to
    be given next time. ``wait``: seconds before the second attempt, twice as many before each further one.

    Raises :class:`DownloadError`: no network, an answer of the server other than the file, no room on the disk, a wrong
    checksum. It says how to put the file there by hand.
    """
    path = Path(path)
    if path.is_file():
        return path
    part = path.with_name(path.name + ".part")
    by_hand = f"To do it by hand, fetch {url} and put it at {path}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.is_file():  # another process was faster
                return path
            _fetch_patiently(url, part, wait, by_hand)
            found = sha256_of(part)
            if sha256 and found != sha256.lower():
                part.unlink()
                raise DownloadError(
                    f"{url}: has SHA-256 {found}, not {sha256}: damaged on the way, or another file. It was removed. "
                    f"{by_hand}"
                )
            if not sha256:
                print(f"{path.name}: SHA-256 {found} (none is recorded to compare with)")
            os.replace(part, path)
            _tag(part).unlink(missing_ok=True)
    except OSError as error:
        free = shutil.disk_usage(_existing(path.parent)).free
        raise DownloadError(
            f"{path}: cannot be written ({error.strerror or error}; {free / 1e9:.1f} GB free). Make room, or move the "
            f"cache with $KDKIT_CACHE. {by_hand}"
        ) from error
    return path


def download_json(url: str, advice: str) -> dict:
    """A small JSON answer. Raises :class:`DownloadError`, ending in ``advice``."""
    try:
        with _open(url) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{url}: the server answers {error.code} {error.reason}. {advice}") from error
    except (*_BROKEN, ValueError) as error:
        raise DownloadError(
            f"{url}: cannot be reached ({getattr(error, 'reason', None) or error}). {advice}"
        ) from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_sha256(path: Path, sha256: str) -> None:
    """Raises :class:`DownloadError` when the file at ``path`` has another checksum."""
    if Path(path).is_file() and (found := sha256_of(path)) != sha256.lower():
        raise DownloadError(
            f"{path}: has SHA-256 {found}, not {sha256}: damaged, or another file; fetch it again"
        )


def _open(url: str, headers: dict[str, str] | None = None):
    request = urllib.request.Request(url, headers={"User-Agent": "kdkit"} | (headers or {}))
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _tag(part: Path) -> Path:
    """Says which version of the file the part is of: the server's ETag."""
    return part.with_name(part.name + ".tag")


def _fetch_patiently(url: str, part: Path, wait: float, by_hand: str) -> None:
    """Attempts until the part is whole; gives up when several in a row brought nothing, or nobody answers at all."""
    idle = 0
    while True:
        before = _size(part)
        try:
            return _fetch(url, part)
        except urllib.error.HTTPError as error:
            raise DownloadError(
                f"{url}: the server answers {error.code} {error.reason}. {by_hand}"
            ) from error
        except _BROKEN as error:
            if getattr(error, "errno", None) in _DISK:
                raise
            idle = 0 if _size(part) > before else idle + 1
            reason = getattr(error, "reason", None)  # of a connection that did not come about
            if reason or idle >= ATTEMPTS:
                kept = f"{_size(part):,} bytes are kept, the same call goes on there. " if _size(part) else ""
                raise DownloadError(
                    f"{url}: cannot be reached ({reason or error}). {kept}{by_hand}"
                ) from error
            time.sleep(wait * 2**idle)


def _fetch(url: str, part: Path) -> None:
    """One attempt. Goes on after what is in ``part``, if the server still has that version of the file."""
    tag = _tag(part)
    begun = _size(part) if tag.exists() else 0
    resume = {"Range": f"bytes={begun}-", "If-Range": tag.read_text(encoding="utf-8")} if begun else {}
    try:
        answer = _open(url, resume)
    except urllib.error.HTTPError as error:
        if begun and error.code == 416:  # there is nothing after the last byte: it was whole
            return
        raise
    with answer:
        begun = begun if answer.status == 206 else 0
        rest = int(answer.headers.get("Content-Length") or 0)
        if rest > shutil.disk_usage(part.parent).free:
            raise OSError(errno.ENOSPC, f"{rest / 1e9:.1f} GB are needed")
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if version and not version.startswith("W/"):  # a weak tag does not promise the same bytes
            write_text(tag, version)
        else:
            tag.unlink(missing_ok=True)
        bar = tqdm(
            total=begun + rest or None,
            initial=begun,
            desc=part.name.removesuffix(".part"),
            unit="B",
            unit_scale=True,
            mininterval=1.0,
        )
        with open(part, "ab" if begun else "wb") as file, bar:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if rest and _size(part) != begun + rest:
        raise http.client.IncompleteRead(b"", begun + rest - _size(part))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
