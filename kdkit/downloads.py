"""Downloads that can be cut off: resumed with HTTP ranges, checked, moved to their place only when whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from kdkit.errors import DownloadError

_CHUNK = 1 << 18
_TIMEOUT = 30.0  # seconds without a byte
_ATTEMPTS = 5  # in a row that bring nothing; one that brings something starts the count anew


def download(url: str, path: str | Path, sha256: str | None = None, progress: bool = True) -> Path:
    """The file at ``path``, fetched from ``url`` unless it is there already.

    What has come so far is kept in ``<path>.part``: a connection that breaks is taken up again with a Range request,
    by this call or by the next one. The server's ETag is kept beside it, so that halves of two different files are
    never joined. ``sha256`` (hex) is checked before the file gets its name, and on a file that was there already.

    Raises :class:`DownloadError`, which names URL and place for a download by hand.
    """
    path = Path(path)
    by_hand = f"download {url} by hand, put it at {path}, and run the same command again"
    if path.is_file():
        _check_digest(path, sha256, f"{path}: not the file that {url} should be; remove it, or {by_hand}")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part, etag = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.etag")
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            whole = _fetch(url, part, etag, progress, path.name)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise DownloadError(
                    f"{url}: the server says {error.code} {error.reason}; {by_hand}"
                ) from error
            whole, reason = False, f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:  # URLError, timeouts and resets are OSErrors
            if isinstance(error, OSError) and error.filename:  # of a file here, not of the network
                raise DownloadError(f"{part}: cannot be written ({error})") from error
            whole, reason = False, str(getattr(error, "reason", error)) or type(error).__name__
        else:
            reason = "the connection broke off"
        if whole:
            break
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures >= _ATTEMPTS:
            raise DownloadError(f"{url}: cannot be downloaded ({reason}); {by_hand}")
        time.sleep(min(0.2 * 2**failures, 5.0))
    try:
        _check_digest(part, sha256, f"{url}: what came is not what was published (wrong SHA-256); {by_hand}")
    except DownloadError:
        part.unlink()
        raise
    finally:
        etag.unlink(missing_ok=True)
    os.replace(part, path)
    return path


def unpack(archive: str | Path, folder: str | Path, inside: str = "") -> Path:
    """Unpacks a tar archive to ``folder``, which appears only when everything is in it; there already, it is kept.

    ``inside`` names the folder in the archive that becomes ``folder`` (default: the archive's top); it may be a
    pattern, such as ``*/recordings``.

    Raises :class:`DownloadError` for an archive that is damaged, lacks ``inside`` or would write outside its folder.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial"))
    try:
        with (
            tarfile.open(archive) as tar,
            tqdm(desc=f"unpacking {archive.name}", unit=" files", mininterval=1.0) as bar,
        ):
            for member in tar:
                tar.extract(member, partial, filter="data")
                bar.update()
        partial.chmod(0o755)
        found = sorted(partial.glob(inside)) if inside else [partial]
        if not found:
            raise DownloadError(f"{archive}: has no folder {inside}; is this the right file?")
        os.replace(found[0], folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DownloadError(
            f"{archive}: cannot be unpacked ({error}); remove it and download it again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _fetch(url: str, part: Path, etag: Path, progress: bool, name: str) -> bool:
    """One request for what is missing of ``part``; true if the file is whole afterwards."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "kdkit"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if etag.exists():
            headers["If-Range"] = etag.read_text()
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing left to send: whole already, or not the beginning of this file
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            return True
        part.unlink()
        return False
    with answer:
        if answer.status != 206:  # the whole file again: no ranges here, or it is another file by now
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        if total and shutil.disk_usage(part.parent).free < total - have:
            raise DownloadError(f"{part.parent}: {name} needs {(total - have) / 1e6:.0f} MB; make room")
        tag = answer.headers.get("ETag", "")
        if tag and not tag.startswith("W/"):
            etag.write_text(tag)
        bar = tqdm(total=total, initial=have, desc=name, unit="B", unit_scale=True, disable=not progress)
        with bar, open(part, "r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
            return total is None or file.tell() == total


def _check_digest(path: Path, sha256: str | None, message: str) -> None:
    if sha256 is None:
        return
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != sha256.lower():
        raise DownloadError(message)
