"""Tar archives, unpacked whole or not at all."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from tqdm import tqdm

from kdkit.errors import DownloadError


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
