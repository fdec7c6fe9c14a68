"""Tar archives, unpacked whole or not at all."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from tqdm import tqdm

from kdkit.common.errors import DownloadError
from kdkit.common.files import DISK, partial_name, sweep, writing


def unpack(archive: str | Path, folder: str | Path, inside: str = "") -> Path:
    """Unpacks a tar archive to ``folder``, which appears only when everything is in it; there already, it is kept.

    ``inside`` names the folder in the archive that becomes ``folder`` (default: the archive's top); it may be a
    pattern, such as ``*/recordings``.

    Raises :class:`DownloadError` for an archive that is damaged, lacks ``inside``, would write outside its folder, or
    holds anything but files and folders: links can bring in files from outside, and corpora have none.
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
    """Python's "data" filter, for files and folders only."""
    if not (member.isreg() or member.isdir()):
        raise tarfile.FilterError(f"{member.name} is a link or a device, not a file or a folder")
    return tarfile.data_filter(member, folder)
