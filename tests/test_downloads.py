"""Downloads from a server that cuts connections, lies, is full of errors or not there; and teachers fetched by name."""

import hashlib
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import torchaudio
from formats import SMALL, SMALL_TORCHAUDIO, shrunk, transformers_model, write_fairseq, write_folder
from packaging.version import Version
from standins import COMMIT, Server, listing

from kdkit.common import downloads
from kdkit.common.downloads import download
from kdkit.common.errors import CheckpointError, DownloadError
from kdkit.common.files import cache_folder
from kdkit.recognition.loading import load_network
from kdkit.teachers import load as sources
from kdkit.teachers import load_teacher
from kdkit.teachers.bundles import BUNDLES

DATA = bytes(range(256)) * 20_000  # 5 MB


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "ATTEMPTS", 2)
    server = Server()
    server.files["file.bin"] = DATA
    yield server
    server.close()


def seen(folder: Path) -> list[str]:
    """Names in a folder, without the locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_several_processes_fetch_a_file_once(server, tmp_path):
    path = tmp_path / "file.bin"
    threads = [threading.Thread(target=download, args=(f"{server.url}/file.bin", path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == DATA and server.ranges == [None]


def test_a_file_arrives_whole_and_is_not_fetched_twice(server, tmp_path, capsys):
    path = tmp_path / "folder" / "file.bin"
    assert download(f"{server.url}/file.bin", path) == path
    assert path.read_bytes() == DATA and seen(path.parent) == ["file.bin"]
    digest = hashlib.sha256(DATA).hexdigest()
    said = capsys.readouterr()
    assert f"file.bin: SHA-256 {digest} (none is recorded" in said.out
    assert "file.bin: 100%" in said.err and "5.12M/5.12M" in said.err
    download(f"{server.url}/file.bin", path)
    assert len(server.ranges) == 1


def test_a_connection_that_is_cut_is_taken_up_where_it_broke_off(server, tmp_path):
    server.cut = [1_000_000, 2_000_000]
    path = tmp_path / "file.bin"
    download(f"{server.url}/file.bin", path, hashlib.sha256(DATA).hexdigest(), wait=0)
    assert path.read_bytes() == DATA and seen(tmp_path) == ["file.bin"]
    assert server.ranges == [None, "bytes=1000000-", "bytes=3000000-"]


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server, tmp_path):
    server.cut, path = [1_000_000, 0, 0], tmp_path / "file.bin"
    with pytest.raises(DownloadError, match="1,000,000 bytes are kept, the same call goes on there"):
        download(f"{server.url}/file.bin", path, wait=0)
    assert not path.exists()
    server.asked.clear()
    download(f"{server.url}/file.bin", path, wait=0)
    assert path.read_bytes() == DATA and server.ranges == ["bytes=1000000-"]


def test_a_file_that_has_changed_meanwhile_is_begun_anew(server, tmp_path):
    server.cut, path = [1_000_000, 0, 0], tmp_path / "file.bin"
    with pytest.raises(DownloadError):
        download(f"{server.url}/file.bin", path, wait=0)
    server.files["file.bin"] = DATA[::-1]
    download(f"{server.url}/file.bin", path, wait=0)
    assert path.read_bytes() == DATA[::-1]


def test_a_part_that_is_whole_already_is_taken(server, tmp_path):
    path = tmp_path / "file.bin"
    (tmp_path / "file.bin.part").write_bytes(DATA)
    (tmp_path / "file.bin.part.tag").write_text(f'"{hashlib.sha256(DATA).hexdigest()}"')
    download(f"{server.url}/file.bin", path)
    assert path.read_bytes() == DATA and not (tmp_path / "file.bin.part.tag").exists()


def test_a_wrong_checksum_is_refused_and_removed(server, tmp_path):
    with pytest.raises(DownloadError, match=f"not {'0' * 64}: damaged on the way.*put it at .*file.bin"):
        download(f"{server.url}/file.bin", tmp_path / "file.bin", "0" * 64)
    assert not any(name.endswith((".bin", ".part")) for name in seen(tmp_path))


def test_a_known_checksum_also_holds_for_what_lies_there(server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(DATA)
    digest = hashlib.sha256(DATA).hexdigest()
    assert download(f"{server.url}/file.bin", path, digest) == path
    path.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(DownloadError, match=r"file\.bin: has SHA-256 .* not .*remove it"):
        download(f"{server.url}/file.bin", path, digest)
    assert server.ranges == [] and path.exists(), "it may be somebody's own file"


def test_a_partial_answer_that_begins_elsewhere_is_refused(server, tmp_path):
    server.cut, server.shift, path = [1_000_000], 7, tmp_path / "file.bin"
    with pytest.raises(DownloadError, match=r"asked to go on at byte 1000000.*bytes 1000007-"):
        download(f"{server.url}/file.bin", path, wait=0)
    assert not path.exists() and (tmp_path / "file.bin.part").read_bytes() == DATA[:1_000_000]


def test_an_answer_without_a_length_needs_a_checksum(server, tmp_path):
    server.says_length, path = False, tmp_path / "file.bin"
    with pytest.raises(DownloadError, match="does not say how long the file is"):
        download(f"{server.url}/file.bin", path)
    digest = hashlib.sha256(DATA).hexdigest()
    server.cut = [1000]
    with pytest.raises(DownloadError, match="damaged on the way"):
        download(f"{server.url}/file.bin", path, digest)
    assert download(f"{server.url}/file.bin", path, digest).read_bytes() == DATA


def test_a_part_that_is_a_link_is_refused(server, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "file.bin.part").symlink_to(tmp_path / "precious")
    with pytest.raises(DownloadError, match=r"file\.bin\.part: a symbolic link"):
        download(f"{server.url}/file.bin", tmp_path / "file.bin")
    with pytest.raises(OSError, match="symbolic links"):  # and nobody can put one there in between
        downloads._open_part(tmp_path / "file.bin.part", False)
    assert (tmp_path / "precious").read_text() == "mine"


def test_redirects_are_followed_but_not_to_where_anybody_can_listen(server, tmp_path, monkeypatch):
    server.redirects["old.bin"] = f"{server.url}/file.bin"
    assert download(f"{server.url}/old.bin", tmp_path / "a.bin").read_bytes() == DATA
    server.redirects["old.bin"] = f"ftp://127.0.0.1:{server.http.server_port}/file.bin"
    with pytest.raises(DownloadError, match="redirects from http to ftp"):
        download(f"{server.url}/old.bin", tmp_path / "b.bin")
    secure = downloads.urllib.request.Request("https://127.0.0.1/old.bin")
    with pytest.raises(DownloadError, match="redirects from https to http://127"):
        downloads._Redirects().redirect_request(secure, None, 302, "", {}, f"{server.url}/file.bin")
    assert downloads._Redirects().redirect_request(secure, None, 302, "", {}, "https://127.0.0.1/new.bin")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/file.bin", "http://no-such-host.invalid/file.bin"])
def test_without_a_network_the_message_says_what_to_put_where(url, tmp_path):
    with pytest.raises(DownloadError) as error:
        download(url, tmp_path / "file.bin")
    said = str(error.value)
    assert "cannot be reached" in said and "\n" not in said
    assert said.endswith(f"To do it by hand, fetch {url} and put it at {tmp_path / 'file.bin'}")


def test_an_answer_that_is_no_file(server, tmp_path):
    with pytest.raises(
        DownloadError, match=r"other.bin: the server answers 404 Not Found\. To do it by hand"
    ):
        download(f"{server.url}/other.bin", tmp_path / "other.bin")


def test_no_room_is_seen_before_anything_is_written(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        DownloadError, match=r"0.0 GB are needed; 0.0 GB free\). Make room, or move the cache"
    ):
        download(f"{server.url}/file.bin", tmp_path / "file.bin")
    assert seen(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_disk_that_fills_up(server, tmp_path, monkeypatch):
    real = downloads._open_part
    monkeypatch.setattr(downloads, "_open_part", lambda part, append: real(Path("/dev/full"), append))
    with pytest.raises(DownloadError, match=r"cannot be written .No space left on device"):
        download(f"{server.url}/file.bin", tmp_path / "file.bin")
    assert len(server.ranges) == 1, "no use in trying again"


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(DownloadError, match="cannot be written"):
        download(f"{server.url}/file.bin", tmp_path / "folder" / "file.bin")


# --- teachers by name ---------------------------------------------------------------------------------------


def serve(server: Server, prefix: str, folder: Path) -> None:
    for path in folder.iterdir():
        server.files[f"{prefix}/{path.name}"] = path.read_bytes()


def publish(server: Server, name: str, folder: Path, digests: bool = True) -> None:
    """Puts a folder on the hub as a repository."""
    announce(server, name, folder, digests)
    serve(server, f"{name}/resolve/{COMMIT}", folder)


def announce(server: Server, name: str, folder: Path, digests: bool = True, revision: str = "main") -> None:
    server.files[f"api/models/{name}/revision/{revision}"] = listing(name, folder, digests).encode()


@pytest.fixture
def hub(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    return server


def visible(folder: Path) -> list[str]:
    return [name for name in seen(folder) if not name.startswith(".")]


def test_a_model_of_a_hub(hub, tmp_path):
    folder = tmp_path / "made"
    transformers_model("hubert", **SMALL).save_pretrained(folder)
    publish(hub, "some/hubert", folder)
    teacher = load_teacher("some/hubert")
    assert teacher.config.layers == 3 and teacher.source == "some/hubert"
    kept = cache_folder() / "teachers" / "huggingface" / "some--hubert"
    assert visible(kept) == ["config.json", "model.safetensors"]
    asked = len(hub.ranges)
    load_teacher("some/hubert")
    assert len(hub.ranges) == asked, "from the cache"
    weights = f"some/hubert/resolve/{COMMIT}/model.safetensors"
    hub.files[weights] = hub.files[weights][:-1] + b"!"
    (kept / "config.json").unlink()
    (kept / "model.safetensors").unlink()
    with pytest.raises(DownloadError, match="another SHA-256 than"):
        load_teacher("some/hubert")
    assert "model.safetensors" not in seen(kept)


def test_a_download_from_a_hub_is_taken_up_where_it_broke_off(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)  # 10 MB
    folder = tmp_path / "made"
    transformers_model("hubert", **SMALL).save_pretrained(folder)
    size = (folder / "model.safetensors").stat().st_size
    publish(hub, "some/hubert", folder)
    hub.cut = [10**9, 100_000]  # the list of files, then the weights
    if Version(huggingface_hub.__version__) < Version(
        "1.0"
    ):  # which gives up, and begins anew when asked again
        with pytest.raises(DownloadError, match=r"model.safetensors: cannot be downloaded"):
            load_teacher("some/hubert")
        assert load_teacher("some/hubert").config.layers == 3
        return
    assert load_teacher("some/hubert").config.layers == 3 and size > 100_000
    assert "bytes=100000-" in hub.ranges


def test_a_recogniser_of_a_hub_comes_with_its_vocabulary(hub, tmp_path):
    from test_foreign_recognisers import ENGLISH, ctc_model, write_model

    folder = write_model(tmp_path / "made", ctc_model("hubert", len(ENGLISH)), ENGLISH)
    publish(hub, "some/asr", folder, digests=False)
    recogniser = load_network("some/asr")
    assert recogniser.vocabulary.index("E") == 5 and recogniser.model.config.normalise_input
    kept = seen(cache_folder() / "teachers" / "huggingface" / "some--asr")
    assert {"vocab.json", "tokenizer_config.json"} <= set(kept)
    assert {"processor_config.json", "preprocessor_config.json"} & set(
        kept
    )  # of transformers 5, of older ones
    assert "words.json" not in kept, "only what is known"


def test_a_model_of_a_hub_in_several_files(hub, tmp_path, capsys):
    folder = tmp_path / "made"
    write_folder(folder, transformers_model("hubert", **SMALL), "safetensors shards")
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    publish(hub, "some/large", folder)
    last = hub.files.pop(f"some/large/resolve/{COMMIT}/{shards[-1]}")
    with pytest.raises(DownloadError, match=rf"some/large: {shards[-1]}: cannot be downloaded \(.*404"):
        load_teacher("some/large")
    kept = cache_folder() / "teachers" / "huggingface" / "some--large"
    assert set(shards[:-1]) <= set(seen(kept)) and "config.json" not in seen(kept)
    hub.files[f"some/large/resolve/{COMMIT}/{shards[-1]}"] = last
    asked = len(hub.ranges)
    assert load_teacher("some/large").config.layers == 3
    assert len(hub.ranges) == asked + 3, "only what was missing: the list, the last shard, config.json"
    assert f"{shards[-1]}, {len(shards)} of {len(shards)}" in capsys.readouterr().out
    asked = len(hub.ranges)
    load_teacher("some/large")
    assert len(hub.ranges) == asked, "from the cache"
    (kept / shards[0]).unlink()
    load_teacher("some/large")
    assert (kept / shards[0]).is_file(), "a shard that was lost is fetched again"
    (kept / shards[0]).unlink()
    (folder / shards[0]).unlink()
    announce(hub, "some/large", folder)
    with pytest.raises(CheckpointError, match=f"names {shards[0]}, which the hub does not have"):
        load_teacher("some/large")


def test_a_hub_that_is_not_there_or_has_no_such_model(hub, tmp_path, monkeypatch):
    with pytest.raises(
        DownloadError, match=r"some/other: .*404.*Or put config.json and model.safetensors .*some--other"
    ):
        load_teacher("some/other")
    (tmp_path / "empty").mkdir()
    announce(hub, "some/text", tmp_path / "empty", revision="v1")
    with pytest.raises(
        CheckpointError, match=r"has no config.json with model.safetensors or pytorch_model.bin"
    ):
        load_teacher("some/text@v1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        DownloadError, match=r"some/other: cannot be downloaded \(.*Or put config.json"
    ) as error:
        load_teacher("some/other")
    assert "\n" not in str(error.value)


def test_a_bundle_and_a_fairseq_file_by_name(server, tmp_path, monkeypatch):
    bundle = torchaudio.pipelines.HUBERT_BASE
    monkeypatch.setitem(BUNDLES, "HUBERT_BASE", shrunk(BUNDLES["HUBERT_BASE"], SMALL_TORCHAUDIO))
    monkeypatch.setattr("kdkit.teachers.bundles._URL", f"{server.url}/torchaudio/")
    torch.save(torchaudio.models.wav2vec2_model(**SMALL_TORCHAUDIO).state_dict(), tmp_path / "model.pth")
    server.files[f"torchaudio/{bundle._path}"] = (tmp_path / "model.pth").read_bytes()
    server.cut = [10_000]
    assert load_teacher("HUBERT_BASE").config.layers == 3
    assert (cache_folder() / "teachers" / bundle._path).is_file()

    write_fairseq(tmp_path / "hubert.pt", transformers_model("hubert", **SMALL), clusters=5)
    data = (tmp_path / "hubert.pt").read_bytes()
    server.files["hubert_base_ls960.pt"] = data
    recorded = f"{server.url}/hubert_base_ls960.pt", hashlib.sha256(data).hexdigest()
    monkeypatch.setitem(sources.FAIRSEQ_FILES, "hubert_base_ls960", recorded)
    assert len(load_teacher("hubert_base_ls960").codebook.label_embeddings) == 5


def test_the_recorded_checksums_are_checksums():
    for url, digest in sources.FAIRSEQ_FILES.values():
        assert url.startswith("https://") and (digest is None or len(bytes.fromhex(digest)) == 32)
