"""Downloads: resumed where the connection broke, checked, and never half there under their name."""

import hashlib
import io
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kdkit import downloads
from kdkit.downloads import download, unpack
from kdkit.errors import DownloadError

CONTENT = bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves ``content`` at every path; cuts an answer off after ``cut`` bytes while ``cuts`` last."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.ranges = CONTENT, '"one"', True
        self.cut, self.cuts, self.asked = 0, 0, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if self.path == "/missing":
            return self.send_error(404)
        content, first = server.content, 0
        same = self.headers.get("If-Range") in (None, server.etag)
        if wanted and server.ranges and same:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if first >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return None
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.send_header("ETag", server.etag)
        self.end_headers()
        body = content[first:]
        if server.cuts:
            server.cuts -= 1
            body = body[: server.cut]
        self.wfile.write(body)
        self.close_connection = True
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.cut, server.cuts = 300_000, 3
    path = download(server.url, tmp_path / "deep" / "file.bin", SHA256)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert left(path.parent) == ["file.bin"]
    download(server.url, path, SHA256)
    assert len(server.asked) == 4  # it was there


def test_a_later_call_goes_on_too(server, tmp_path):
    server.cut, server.cuts = 300_000, 1
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:123_456])
    assert download(server.url, tmp_path / "file.bin", SHA256).read_bytes() == CONTENT
    assert server.asked[0] == "bytes=123456-"


def test_a_whole_part_only_gets_its_name(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "file.bin", SHA256).read_bytes() == CONTENT


def test_halves_of_two_files_are_never_joined(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"old" * 1000)
    (tmp_path / "file.bin.part.etag").write_text('"older"')
    assert download(server.url, tmp_path / "file.bin").read_bytes() == CONTENT
    assert left(tmp_path) == ["file.bin"]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges, server.cut, server.cuts = False, 300_000, 1
    assert download(server.url, tmp_path / "file.bin", SHA256).read_bytes() == CONTENT


def test_another_content_is_refused_and_removed(server, tmp_path):
    with pytest.raises(DownloadError, match=r"SHA-256.*by hand.*file\.bin"):
        download(server.url, tmp_path / "file.bin", "0" * 64)
    assert left(tmp_path) == []
    (tmp_path / "file.bin").write_bytes(b"mine")
    with pytest.raises(DownloadError, match="remove it"):
        download(server.url, tmp_path / "file.bin", SHA256)
    assert (tmp_path / "file.bin").read_bytes() == b"mine"


def test_offline_the_message_says_what_to_do_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/speech.tar.gz"  # nobody listens there
    with pytest.raises(DownloadError) as error:
        download(url, tmp_path / "speech.tar.gz")
    assert url in str(error.value) and str(tmp_path / "speech.tar.gz") in str(error.value)
    assert "by hand" in str(error.value) and "refused" in str(error.value)


def test_what_is_not_there_is_not_asked_for_again(server, tmp_path):
    with pytest.raises(DownloadError, match="404"):
        download(server.url.replace("file.bin", "missing"), tmp_path / "file.bin")
    assert len(server.asked) == 1


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
    assert left(tmp_path) == ["a.tar.gz", "deep", "inner", "out"]


def test_an_archive_that_reaches_outside_is_refused(tmp_path):
    with pytest.raises(DownloadError, match="unpacked"):
        unpack(make_tar(tmp_path / "a.tar.gz", "../outside.txt"), tmp_path / "deep" / "out")
    assert not (tmp_path / "deep" / "outside.txt").exists()
