"""Archives are unpacked whole or not at all, and only into their folder."""

import io
import tarfile

import pytest

from kdkit.common.downloads import unpack
from kdkit.common.errors import DownloadError


def make_tar(path, name="a/b.txt"):
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    return path


def test_an_archive_is_unpacked_whole_or_not_at_all(tmp_path):
    archive = make_tar(tmp_path / "a.tar.gz")
    assert (unpack(archive, tmp_path / "out") / "a" / "b.txt").read_text() == "hello"
    assert (unpack(archive, tmp_path / "inner", "a") / "b.txt").read_text() == "hello"
    assert (unpack(archive, tmp_path / "deep", "*/b.txt")).read_text() == "hello"
    with pytest.raises(DownloadError, match="no folder not-in-there"):
        unpack(archive, tmp_path / "other", "not-in-there")
    archive.write_bytes(archive.read_bytes()[:-30])
    unpack(archive, tmp_path / "out")  # there already
    with pytest.raises(DownloadError, match=r"a\.tar\.gz.*unpacked"):
        unpack(archive, tmp_path / "again")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz", "deep", "inner", "out"]


def test_an_archive_that_reaches_outside_is_refused(tmp_path):
    with pytest.raises(DownloadError, match="unpacked"):
        unpack(make_tar(tmp_path / "a.tar.gz", "../outside.txt"), tmp_path / "deep" / "out")
    assert not (tmp_path / "deep" / "outside.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["b.txt", "../../secret.txt"])
def test_an_archive_with_links_or_devices_is_refused(tmp_path, kind, target):
    (tmp_path / "secret.txt").write_text("secret")
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("a/b.txt", "a/c.txt"):
            member = tarfile.TarInfo(name)
            if name.endswith("c.txt"):
                member.type, member.linkname = kind, target if kind == tarfile.SYMTYPE else "a/b.txt"
            else:
                member.size = 5
            tar.addfile(member, io.BytesIO(b"hello") if member.size else None)
    with pytest.raises(DownloadError, match=r"a/c\.txt is a link or a device"):
        unpack(archive, tmp_path / "out", "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "secret.txt"]
