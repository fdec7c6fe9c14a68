"""Large files from the network, and the tar archives among them: complete and checked, or not there at all.

A download shows a progress bar. What has arrived is kept as ``NAME.part``, and the next attempt, in this run or a later
one, resumes there if the server still has the same file. Several processes that want one file fetch it once.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from kdkit.common.errors import DownloadError
from kdkit.common.files import DISK, free_bytes, md5_of, partial_name, sha256_of, sweep, write_text, writing
from kdkit.common.progress import tqdm

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # in a row without a new byte
_CHUNK = 1 << 20
_BROKEN = (OSError, http.client.HTTPException)  # errors of a broken connection


def download(
    url: str, path: Path, sha256: str | None = None, wait: float = 1.0, md5: str | None = None
) -> Path:
    """Downloads ``url`` to ``path`` unless it exists; returns ``path``.

    With ``sha256`` (or ``md5``, where the publisher gives only that), a download with another checksum is rejected and
    removed, and an existing file with another one is rejected; without, the checksum is printed. ``wait``: seconds
    before the second attempt, doubled before each further one.

    Raises :class:`DownloadError` (no network, an error of the server, no disk space, a wrong checksum) that says how to
    put the file there by hand.
    """
    path = Path(path)
    kind, wanted = ("MD5", md5) if md5 else ("SHA-256", sha256)
    digest = md5_of if md5 else sha256_of
    if path.is_file():
        if wanted:
            _check(path, kind, digest, wanted)
        return path
    part = path.with_name(path.name + ".part")
    by_hand = f"To do it by hand, fetch {url} and put it at {path}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.is_file():  # another process was faster
                return path
            if part.is_symlink():
                raise DownloadError(f"{part}: a symbolic link; remove it, and the download begins anew")
            _fetch_patiently(url, part, wait, by_hand, wanted is not None)
            found = digest(part)
            if wanted and found != wanted.lower():
                part.unlink()
                raise DownloadError(
                    f"{url}: has {kind} {found}, not {wanted}: damaged on the way, or another file. It was removed. "
                    f"{by_hand}"
                )
            if not wanted:
                print(f"{path.name}: SHA-256 {found} (none is recorded to compare with)")
            os.replace(part, path)
            _tag(part).unlink(missing_ok=True)
    except OSError as error:
        free = free_bytes(path.parent)
        raise DownloadError(
            f"{path}: cannot be written ({error.strerror or error}; {free / 1e9:.1f} GB free). Make room, or move the "
            f"cache with $KDKIT_CACHE. {by_hand}"
        ) from error
    return path


def check_sha256(path: Path, sha256: str) -> None:
    """Raises :class:`DownloadError` when the file at ``path`` has another checksum."""
    _check(path, "SHA-256", sha256_of, sha256)


def _check(path: Path, kind: str, digest: Callable[[Path], str], wanted: str) -> None:
    if Path(path).is_file() and (found := digest(path)) != wanted.lower():
        raise DownloadError(
            f"{path}: has {kind} {found}, not {wanted}: damaged, or another file; remove it, and it is fetched again"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to an unencrypted connection."""

    def redirect_request(self, request, answer, code, message, headers, new_url):
        old, new = (urllib.parse.urlsplit(url).scheme for url in (request.full_url, new_url))
        if new not in ("http", "https") or (old == "https" and new != "https"):
            raise DownloadError(f"{request.full_url}: refused, because it redirects from {old} to {new_url}")
        return super().redirect_request(request, answer, code, message, headers, new_url)


_opener = urllib.request.build_opener(_Redirects)


def _open(url: str, headers: dict[str, str] | None = None):
    request = urllib.request.Request(url, headers={"User-Agent": "kdkit"} | (headers or {}))
    return _opener.open(request, timeout=TIMEOUT)


def _tag(part: Path) -> Path:
    """The file with the server's ETag of the partial file, which identifies its version."""
    return part.with_name(part.name + ".tag")


def _fetch_patiently(url: str, part: Path, wait: float, by_hand: str, checked: bool) -> None:
    """Retries until the file is complete; gives up after several attempts without progress, or without a connection."""
    idle = 0
    while True:
        before = _size(part)
        try:
            return _fetch(url, part, checked)
        except urllib.error.HTTPError as error:
            raise DownloadError(
                f"{url}: the server answers {error.code} {error.reason}. {by_hand}"
            ) from error
        except _BROKEN as error:
            if getattr(error, "errno", None) in DISK:
                raise
            idle = 0 if _size(part) > before else idle + 1
            reason = getattr(error, "reason", None)  # the connection failed
            if reason or idle >= ATTEMPTS:
                kept = f"{_size(part):,} bytes are kept, the same call goes on there. " if _size(part) else ""
                raise DownloadError(
                    f"{url}: cannot be reached ({reason or error}). {kept}{by_hand}"
                ) from error
            time.sleep(wait * 2**idle)


def _fetch(url: str, part: Path, checked: bool) -> None:
    """One attempt. Resumes after the bytes in ``part`` if the server still has that version of the file.

    ``checked``: a checksum will be verified; otherwise the server must announce the length.
    """
    tag = _tag(part)
    begun = _size(part) if tag.exists() else 0
    resume = {"Range": f"bytes={begun}-", "If-Range": tag.read_text(encoding="utf-8")} if begun else {}
    try:
        answer = _open(url, resume)
    except urllib.error.HTTPError as error:
        if begun and error.code == 416:  # nothing after the last byte: it was complete
            return
        raise
    with answer:
        begun = _first_byte(answer, begun)
        length = answer.headers.get("Content-Length")
        if length is None and not answer.chunked and not checked:
            raise DownloadError(
                f"{url}: the server does not say how long the file is, and no checksum is known, so that a connection "
                "that breaks off would go unnoticed"
            )
        rest = int(length or 0)
        if rest > free_bytes(part.parent):
            raise OSError(errno.ENOSPC, f"{rest / 1e9:.1f} GB are needed")
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if version and not version.startswith("W/"):  # a weak ETag does not guarantee the same bytes
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
        with _open_part(part, append=begun > 0) as file, bar:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if rest and _size(part) != begun + rest:
        raise http.client.IncompleteRead(b"", begun + rest - _size(part))


def _first_byte(answer: http.client.HTTPResponse, asked: int) -> int:
    """The offset of an answer's bytes, 0 or ``asked``. Raises :class:`DownloadError` for another part of the file."""
    if answer.status != 206:
        return 0
    given = answer.headers.get("Content-Range", "")
    if not re.match(rf"bytes {asked}-", given):
        raise DownloadError(
            f"{answer.url}: asked to go on at byte {asked}, the server answers with {given or 'an unknown part'!r}; "
            "remove the .part file to begin anew"
        )
    return asked


def _open_part(part: Path, append: bool) -> BinaryIO:
    """Opens the part for writing; fails on a symbolic link, which could lead to any file."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC) | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(part, flags | getattr(os, "O_BINARY", 0), 0o666), "ab" if append else "wb")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# --- archives -----------------------------------------------------------------------------------------------


def unpack(archive: str | Path, folder: str | Path, inside: str = "") -> Path:
    """Unpacks a tar archive to ``folder``, which appears when it is complete; an existing folder is kept.

    ``inside`` names the folder in the archive that becomes ``folder`` (default: its top); it may be a pattern, such as
    ``*/recordings``.

    Raises :class:`DownloadError` for an archive that is damaged, lacks ``inside``, would write outside its folder, or
    contains anything but files and folders: links could point to files outside, and corpora need none.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists():
        return folder
    partial = partial_name(folder)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)
        partial.mkdir()
    try:
        with (
            tarfile.open(archive) as tar,
            tqdm(desc=f"unpacking {archive.name}", unit=" files", mininterval=1.0) as bar,
        ):
            for member in tar:
                tar.extract(member, partial, filter=_plain_members)
                bar.update()
        found = sorted(partial.glob(inside)) if inside else [partial]
        if not found:
            raise DownloadError(f"{archive}: has no folder {inside}; is this the right file?")
        os.replace(found[0], folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        with writing(folder):
            if getattr(error, "errno", None) in DISK:
                raise
        raise DownloadError(
            f"{archive}: cannot be unpacked ({error}); remove it and download it again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _plain_members(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Python's "data" filter, restricted to files and folders."""
    if not (member.isreg() or member.isdir()):
        raise tarfile.FilterError(f"{member.name} is a link or a device, not a file or a folder")
    return tarfile.data_filter(member, folder)
