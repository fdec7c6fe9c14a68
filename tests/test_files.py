"""Writing: whole or not at all, one clear line where it is not possible, nothing left behind, nothing lost."""

import os
import platform
import resource
import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from typer.testing import CliRunner

from kdkit.commands.main import app
from kdkit.common import files
from kdkit.common.errors import CheckpointError, ConfigError, OutputError
from kdkit.common.files import (
    GrowingFile,
    alone,
    check_output,
    partial_name,
    sha256_of,
    sweep,
    write_atomically,
    write_text,
)
from kdkit.model.checkpoints import load_checkpoint, save_checkpoint, shipped_sums
from kdkit.recognition.ctc import load_recogniser
from kdkit.teachers import ASSETS, load_model
from kdkit.training.run_log import read_rows

NOBODY = 2**22 + 1  # no system numbers processes that high


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "a")
        save_checkpoint(tmp_path / "b.safetensors", {"x": torch.ones(2)}, {})
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path):
    names = {
        f".a.{platform.node()}-{NOBODY}-0.partial.safetensors": False,
        f".corpus.{platform.node()}-{NOBODY}-3.partial": False,
        f".a.{platform.node()}-{os.getpid()}-0.partial.txt": True,  # is being written
        f".a.elsewhere-{NOBODY}-0.partial.txt": True,
        ".hidden.partial": True,
        "talk.txt.part": True,
    }
    for name in names:
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (1, 1))
    young = tmp_path / f".b.{platform.node()}-{NOBODY}-0.partial"
    young.mkdir()
    sweep(tmp_path)
    assert {name: (tmp_path / name).exists() for name in names} == names and young.exists()
    os.utime(young, (1, 1))
    files._sweep_once.cache_clear()
    write_text(tmp_path / "new.txt", "x")  # the next write in a new process
    assert not young.exists()


def test_a_write_that_is_killed_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    program = (
        "import os, signal; from pathlib import Path; from kdkit.common.files import write_atomically\n"
        "def write(path): path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_atomically(Path({str(path)!r}), write)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    (left,) = set(tmp_path.iterdir()) - {path}
    assert path.read_text() == "old"
    os.utime(left, (1, 1))
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


PLACES = {
    "below a file": ("file/out", "part of its path is a file|a file is where a folder is needed"),
    "a file": ("file", "a file is where a folder is needed|part of its path is a file"),
    "a long name": ("x" * 300, "the name is too long"),
    "below a long name": (f"{'y' * 300}/out", "the name is too long"),
    "a loop": ("loop/out", "links lead in a circle|a file is where a folder is needed"),
}


@pytest.mark.parametrize("place", PLACES)
def test_places_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    name, reason = PLACES[place]
    with pytest.raises(OutputError, match=reason):
        check_output(tmp_path / name, folder=True)
    if place != "a file":
        for call in (check_output, lambda path: write_text(path, "x"), GrowingFile):
            with pytest.raises(OutputError, match=reason):
                call(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop"]
    with pytest.raises(OutputError, match="it is a folder: name a file"):
        check_output(tmp_path)


def test_trying_leaves_nothing_behind(tmp_path):
    assert check_output(tmp_path / "a/b/c", folder=True) == tmp_path / "a/b/c"
    check_output(tmp_path / "a/b.txt")
    assert list(tmp_path.iterdir()) == []


def test_free_space_where_a_folder_will_be(tmp_path, monkeypatch):
    assert files.free_bytes(tmp_path / "a/b/c") > 0
    monkeypatch.setattr(Path, "exists", lambda path: False)  # such as a drive of Windows that is not there
    assert files.free_bytes(tmp_path / "a/b/c") == 0


OUTPUTS = {
    "distill": ["distill", "tiny-sw-fbank", "--out"],
    "finetune": ["finetune", "tiny-sw-fbank", "--out"],
    "swap": ["swap", "tiny-sw-waveform", "--out"],
    "statistics": ["statistics", "--out"],
    "transcribe": ["transcribe", "tiny_sw_fbank_distilled_60", "a.wav", "--out"],
    "evaluate": ["evaluate", "tiny_sw_fbank_distilled_60", "--errors"],
    "export": ["export", "tiny_sw_waveform_distilled_10", "--out"],
    "huggingface": ["export", "tiny_sw_waveform_distilled_10", "--to", "huggingface", "--out"],
    "lm": ["lm", "a.txt", "--out"],
    "align": ["align", "a.jsonl", "--out"],
    "probe": ["probe", "--out"],
    "prepare": ["prepare", "folder", "a", "--out"],
    "report": ["report", "--out"],
    "compare": ["report", "compare", "a", "b", "--html"],
    "corpus": ["corpus", "--root"],
}


@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("place", ["below a file", "a long name"])
def test_every_command_tries_its_output_before_it_works(tmp_path, monkeypatch, command, place):
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    name, reason = PLACES[place]
    with pytest.raises(OutputError, match=f"cannot be written: ({reason})"):
        CliRunner().invoke(app, [*OUTPUTS[command], name], catch_exceptions=False)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path / "file" / "cache"))
    arguments = ["distill", "tiny-sw-fbank", "--steps", "2", "--out", str(tmp_path / "out")]
    with pytest.raises(OutputError, match=r"file/cache.*a file"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.fixture
def limited():
    """Files may have 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_is_one_line_whoever_writes(tmp_path, limited):
    path = tmp_path / "a"
    path.write_text("old")
    for call in (
        lambda: write_text(path, "x" * 200_000),
        lambda: save_checkpoint(path, {"x": torch.ones(200_000)}, {}),  # safetensors has errors of its own
        lambda: write_atomically(path, lambda temporary: temporary.write_bytes(bytes(200_000))),
    ):
        with pytest.raises(OutputError, match="larger than a file may be here"):
            call()
        assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "said",
    ["No space left on device (os error 28)", 'IoError(Os { code: 28, kind: StorageFull, message: "x" })'],
)
def test_no_room_as_new_and_old_safetensors_say_it(tmp_path, said):
    def write(temporary):
        raise SafetensorError(f"Error while serializing: {said}")

    with pytest.raises(OutputError, match="a: cannot be written: the disk is full"):
        write_atomically(tmp_path / "a", write)


def test_a_growing_file_keeps_whole_pieces(tmp_path, limited):
    path = tmp_path / "texts.txt"
    full = pytest.raises(
        OutputError, match=r"larger than a file may be.*what was done is in .*texts\.txt\.part"
    )
    with full, GrowingFile(path) as file:
        for number in range(30):
            file.add(f"{number:02d}" * 4000 + "\n")  # 8 kB
    lines = Path(f"{path}.part").read_text().splitlines()
    assert not path.exists() and len(lines) == 12 and lines[-1] == "11" * 4000
    with GrowingFile(path) as file:
        file.add("a\n")
        assert Path(f"{path}.part").read_text() == "a\n"  # at once
    assert path.read_text() == "a\n" and len(list(tmp_path.iterdir())) == 1


def test_a_lock_ends_with_its_process(tmp_path):
    program = "import time; from kdkit.common.files import alone\n"
    program += f"with alone({str(tmp_path)!r}): print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    process.stdout.readline()
    with pytest.raises(ConfigError, match="another training is running there"), alone(tmp_path):
        pass
    process.kill()
    process.wait()
    with alone(tmp_path), alone(tmp_path):  # nested
        pass


# what was written is what is read


def test_every_shipped_model_has_its_checksum():
    shipped = {path.name: sha256_of(path) for path in ASSETS.glob("*.safetensors")}
    assert shipped_sums() == shipped


@pytest.mark.parametrize("name", ["tiny_sw_fbank", "recogniser_tiny_sw_fbank_distilled_60"])
def test_a_flipped_bit_in_a_shipped_model_is_refused(tmp_path, name):
    load = load_recogniser if name.startswith("recogniser") else load_model
    good = (ASSETS / f"{name}.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    path.write_bytes(good)
    load(path)  # a copy is as good
    header = int.from_bytes(good[:8], "little")
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        place = int(torch.randint(header + 8, len(good), (), generator=generator))
        bad = bytearray(good)
        bad[place] ^= 1 << int(torch.randint(8, (), generator=generator))
        path.write_bytes(bad)
        with pytest.raises(CheckpointError, match="damaged"):
            load(path)


def damages(content: bytes) -> dict[str, bytes]:
    begin = 8 + int.from_bytes(content[:8], "little")
    found = {"zeros": content[:begin] + bytes(len(content) - begin), "cut": content[:-4], "empty": b""}
    for bit in range(0, 8 * len(content), max(1, 8 * len(content) // 150)):
        bad = bytearray(content)
        bad[bit // 8] ^= 1 << bit % 8
        found[f"bit {bit}"] = bytes(bad)
    return found


def test_any_damage_to_tensors_or_facts_is_seen(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors, meta = {"one": torch.randn(8), "two": torch.arange(4), "three": torch.ones((), dtype=torch.bfloat16)}, {
        "step": 7, "config": {"heads": 2, "rate": 0.1}
    }  # fmt: skip
    save_checkpoint(path, tensors, meta)
    content = path.read_bytes()
    read, same = load_checkpoint(path)
    assert same == meta and all(torch.equal(read[name], tensors[name]) for name in tensors)
    told = []
    for kind, bad in damages(content).items():
        path.write_bytes(bad)
        with suppress(
            CheckpointError
        ):  # else the same: a space of the header became another one, for instance
            read, same = load_checkpoint(path)
            assert same == meta and all(torch.equal(read[name], tensors[name]) for name in tensors), kind
            told.append(kind)
    assert len(told) < 10


def test_rows_that_are_no_rows_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"step": 1, "loss": 2.0}\n\xff\xfe\n[]\n5\n{"step": "2"}\n{"step": 1e999}\n{"loss": 1}\n{"step": 3}'
    )
    assert [row["step"] for row in read_rows(path)] == [1, 3]
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        read_rows(path)


def test_partial_names_of_long_names_are_short_enough(tmp_path):
    for name in ("ä" * 120 + ".safetensors", "x" * 255):
        write_text(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"
    assert partial_name(tmp_path / "a.png").suffix == ".png"  # figures are written by their ending
    shutil.rmtree(tmp_path)
