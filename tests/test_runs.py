"""Runs under attack: another run in the same folder, two at once, kills, full disks, damaged files."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import RECIPE, Batches, Task, newest, rows, weights
from typer.testing import CliRunner

from kdkit.commands.main import app
from kdkit.common.errors import CheckpointError, ConfigError, TrainingError
from kdkit.common.files import alone
from kdkit.fbank import Statistics, save_statistics
from kdkit.speech.audio import write_audio
from kdkit.speech.manifest import Utterance, read_manifest, speech_identity, write_manifest
from kdkit.training import identity
from kdkit.training.loop import train
from kdkit.training.selection import Selection

DEV = replace(RECIPE, evaluate_every=4, save_every=0)


def measured(task: torch.nn.Module) -> dict[str, float]:
    """Better and better, and not the same for two states of the weights."""
    return {"wer": float(sum(p.detach().square().sum() for p in task.net.parameters()))}


def chosen(out: Path, evaluate=measured, batches=None, recipe=DEV) -> tuple[dict, dict]:
    """Trains, chooses on dev; the weights, and what was chosen."""
    task, selection = Task(), Selection(out / "candidates", "wer")
    log = train(task, batches or Batches(), recipe, out, evaluate, selection=selection)
    return weights(task), selection.choose(task, log, evaluate) | {"log": [r for r in log if "wer" in r]}


def same(one: tuple[dict, dict], other: tuple[dict, dict]) -> bool:
    return one[1] == other[1] and all(torch.equal(one[0][name], other[0][name]) for name in one[0])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Twelve utterances of noise with texts, two voices."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    some = []
    for i in range(12):
        path = folder / f"{i}.wav"
        write_audio(path, (0.1 * rng.standard_normal(8000 + 800 * (i % 3))).astype(np.float32))
        some.append(Utterance(f"u{i}", path, 0.5 + 0.05 * (i % 3), "a b", f"s{i % 2}"))
    write_manifest(folder / "train.jsonl", some)
    write_manifest(folder / "other.jsonl", [replace(u, id=f"v{u.id}") for u in some])
    return folder / "train.jsonl"


def command(*arguments, limit: int | None = None, **more) -> subprocess.CompletedProcess:
    """A kdkit command in a process of its own; ``limit``: bytes that a file may have."""
    return subprocess.run(
        [sys.executable, "-m", "kdkit", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None, **more,
    )  # fmt: skip


ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""
}  # fmt: skip


def one_line(done: subprocess.CompletedProcess, status: int = 2) -> str:
    """The line of an error that was explained."""
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, done.stderr
    return said[0]


def finetune(manifest: Path, out: Path, *more) -> list:
    given = [
        "finetune",
        "tiny-sw-fbank",
        "--data",
        manifest,
        "--steps",
        4,
        "--batch-seconds",
        2,
        "--out",
        out,
    ]
    return [*given, *more]


def distill(manifest: Path, out: Path, *more) -> list:
    return [
        "distill",
        "tiny-sw-fbank",
        "--data",
        manifest,
        "--steps",
        4,
        "--batch-seconds",
        2,
        "--out",
        out,
        *more,
    ]


def run(arguments) -> None:
    CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


# the identity of a run


def test_another_start_in_the_same_folder_is_refused_and_fresh_begins_anew(manifest, tmp_path):
    run(finetune(manifest, tmp_path / "out"))
    path = tmp_path / "out" / "recogniser.safetensors"
    before = path.read_bytes()
    run(finetune(manifest, tmp_path / "out"))
    assert path.read_bytes() == before
    with pytest.raises(CheckpointError, match=r"other weights of recogniser.*--fresh"):
        run(finetune(manifest, tmp_path / "out", "--scratch"))
    assert path.read_bytes() == before
    run(finetune(manifest, tmp_path / "out", "--scratch", "--fresh"))
    run(finetune(manifest, tmp_path / "scratch", "--scratch"))
    assert path.read_bytes() == (tmp_path / "scratch" / "recogniser.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        (["--data", "OTHER"], "other speech.ids, durations and texts"),
        (["--batch-seconds", 3], "batch seconds: 2.0 then, 3.0 now"),
        (["--minutes", 0.05], "speech.utterances: 12 then"),
        (["--teacher", "tiny-sw-waveform", "--pairs", "2:2"], "other weights of teacher"),
        (["--no-inherit"], "other weights of student"),
        (["--statistics", "STATISTICS", "--normalisation", "corpus", "--bins", 80], "normalisation"),
        (["--cache"], "targets: 'computed' then"),
    ],
)
def test_what_decides_a_student_is_compared(manifest, tmp_path, finished, monkeypatch, options, differs):
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path / "cache"))
    statistics = Statistics()
    statistics.update(torch.randn(50, 80))
    save_statistics(tmp_path / "statistics.json", statistics)
    names = {"OTHER": manifest.with_name("other.jsonl"), "STATISTICS": tmp_path / "statistics.json"}
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    with pytest.raises(CheckpointError) as refused:
        run(distill(manifest, out, *(names.get(option, option) for option in options)))
    assert differs in str(refused.value) and "--fresh" in str(refused.value)
    assert (out / "student.safetensors").read_bytes() == (finished / "student.safetensors").read_bytes()


@pytest.fixture(scope="module")
def finished(manifest, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    run(distill(manifest, out))
    return out


def test_files_that_were_changed_are_seen(manifest, tmp_path):
    some = read_manifest(manifest)
    before = speech_identity(some)
    assert speech_identity(list(some)) == before
    moved = [replace(u, audio=Path(shutil.copy2(u.audio, tmp_path))) for u in some]
    assert speech_identity(moved) == before  # a copy that keeps the times
    os.utime(moved[3].audio, (1, 1))
    assert "times of the files" in identity.differences(before, speech_identity(moved))
    assert not identity.differences(speech_identity(some, times=False), speech_identity(moved, times=False))
    moved[3].audio.write_bytes(b"")
    assert "sizes of the files" in identity.differences(before, speech_identity(moved))
    for change in ({"id": "x"}, {"duration": 0.7}, {"text": "c"}):
        told = identity.differences(before, speech_identity([replace(some[0], **change), *some[1:]]))
        assert "ids, durations and texts" in told


def test_statistics_are_compared_as_numbers():
    one = torch.nn.Module()
    one.register_buffer("mean", torch.linspace(1, 2, 80))
    before = identity.weights(one)
    one.mean *= 1 + 1e-7  # another machine adds up in another order
    assert not identity.differences(before, identity.weights(one))
    one.mean[3] += 0.1
    assert identity.differences(before, identity.weights(one)) == "other constants of mean"


def test_dev_speech_and_patience_decide_too(tmp_path):
    chosen(tmp_path)
    for settings, told in (
        ({"patience": 2}, "patience: 0 then, 2 now"),
        ({"last": 3}, "average: 1 then, 3 now"),
    ):
        selection = Selection(tmp_path / "candidates", "wer", **settings)
        with pytest.raises(CheckpointError, match=told):
            train(Task(), Batches(), DEV, tmp_path, measured, selection=selection)
    with pytest.raises(CheckpointError, match="dev: None then, 3 now"):
        train(
            Task(), Batches(), DEV, tmp_path, measured, selection=Selection(tmp_path / "candidates", "wer"),
            decides={"dev": 3},
        )  # fmt: skip


def test_a_model_that_is_trained_already_goes_on_in_its_own_folder(tmp_path):
    """In a notebook: the cell is run again with what the first run left."""
    whole = Task()
    train(whole, Batches(), RECIPE, tmp_path / "whole")
    task = Task()
    with pytest.raises(KeyboardInterrupt):
        train(task, Batches(stop=7), RECIPE, tmp_path / "part")
    train(task, Batches(), RECIPE, tmp_path / "part")
    assert all(torch.equal(weights(task)[n], v) for n, v in weights(whole).items())
    train(task, Batches(), RECIPE, tmp_path / "part")
    with pytest.raises(CheckpointError, match="other weights of net"):
        train(Task().apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None),
              Batches(), RECIPE, tmp_path / "part")  # fmt: skip


# two at once


def test_two_trainings_do_not_share_a_folder(tmp_path):
    begun, end = threading.Event(), threading.Event()

    def other():
        with alone(tmp_path):
            begun.set()
            end.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(60)
    with pytest.raises(ConfigError, match="another training is running there"):
        train(Task(), Batches(), RECIPE, tmp_path)
    end.set()
    thread.join()
    train(Task(), Batches(), RECIPE, tmp_path)


# Ctrl-C, SIGTERM, kills


@pytest.mark.parametrize("step", [4, 8, 12])
def test_ctrl_c_twice_in_an_evaluation_changes_nothing(tmp_path, step):
    whole = chosen(tmp_path / "whole")
    asked = []

    def impatient(task):
        asked.append(None)
        if len(asked) == step / 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return measured(task)

    with pytest.raises(KeyboardInterrupt):
        chosen(tmp_path / "part", impatient)
    assert newest(tmp_path / "part").stem == f"step-{step:08d}"  # nothing is lost
    batches = Batches()
    assert same(chosen(tmp_path / "part", batches=batches), whole)
    assert batches.asked == list(range(step, 12))
    assert len([row for row in rows(tmp_path / "part") if "wer" in row]) == 3


@pytest.mark.parametrize("place", ["candidate", "row", "snapshot"])
def test_killed_between_evaluation_and_checkpoint_changes_nothing(tmp_path, monkeypatch, place):
    class Dead(Exception):
        pass

    def die(*arguments):
        raise Dead

    whole = chosen(tmp_path / "whole")
    names = {
        "candidate": "kdkit.training.selection.Selection.keep",
        "row": "kdkit.training.run_log.RunLog.add_evaluation",
    }
    with monkeypatch.context() as patch:
        patch.setattr(names.get(place, "kdkit.training.snapshots.Snapshots.save"), die)
        with pytest.raises(Dead):
            chosen(tmp_path / "part", recipe=replace(DEV, save_every=4))
    assert same(chosen(tmp_path / "part"), whole)


def test_sigterm_saves_as_ctrl_c_does(manifest, tmp_path):
    """Through the real command, which is killed while it trains, and goes on to the same bytes."""
    options = ["--steps", 60, "--seed", 3]
    assert command(*distill(manifest, tmp_path / "whole", *options)).returncode == 0
    arguments = [sys.executable, "-m", "kdkit", *distill(manifest, tmp_path / "part", *options)]
    process = subprocess.Popen(
        list(map(str, arguments)), env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    log = tmp_path / "part" / "metrics.jsonl"
    while not (log.is_file() and log.read_text().count("\n")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors, errors
    assert process.returncode == 130 and "run the same command again" in said
    saved = int(newest(tmp_path / "part").stem[5:])
    assert 10 <= saved < 60
    done = command(*distill(manifest, tmp_path / "part", *options))
    assert done.returncode == 0
    whole, part = (tmp_path / name / "student.safetensors" for name in ("whole", "part"))
    assert whole.read_bytes() == part.read_bytes()


def test_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("kdkit.training.run.time.perf_counter", lambda: now[0])
    saved = []

    class Slow(Batches):
        def batch(self, step):
            now[0] += 130  # seconds
            return super().batch(step)

    monkeypatch.setattr(
        "kdkit.training.snapshots.Snapshots.save", lambda self, step, rows: saved.append(step)
    )
    train(Task(), Slow(), replace(RECIPE, save_every=0), tmp_path)
    assert saved == [3, 6, 9, 12]
    for wrong in ({"save_every": -1}, {"save_minutes": 0}):
        with pytest.raises(ConfigError, match="above 0"):
            replace(RECIPE, **wrong)


# damaged logs


@pytest.mark.parametrize(
    "damage", ["binary", "[]", '{"step": "x"}', '{"step": 1e999}', "[[[[" * 9999, "missing"]
)
def test_a_damaged_log_does_not_stop_a_run_or_change_its_choice(tmp_path, damage):
    whole = chosen(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        chosen(tmp_path / "part", batches=Batches(stop=10))
    log = tmp_path / "part" / "metrics.jsonl"
    lines = log.read_bytes().split(b"\n")
    assert b"wer" in lines[4]
    if damage == "missing":
        log.unlink()
    else:
        lines[4] = b"\xff\x00{" if damage == "binary" else damage.encode()
        log.write_bytes(b"\n".join(lines))
    assert same(chosen(tmp_path / "part"), whole)
    if damage != "missing":
        assert [row["step"] for row in rows(tmp_path / "part")] == [
            row["step"] for row in rows(tmp_path / "whole")
        ]


# damaged checkpoints


@pytest.mark.parametrize("damage", ["bit of the weights", "bit of the facts", "zeros", "NaN", "another run"])
def test_a_damaged_checkpoint_is_passed_over_and_another_run_s_is_refused(tmp_path, damage):
    whole = chosen(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        chosen(tmp_path / "part", batches=Batches(stop=10), recipe=replace(DEV, save_every=4))
    path = newest(tmp_path / "part")
    content = bytearray(path.read_bytes())
    if damage == "bit of the weights":
        content[-9] ^= 4
    elif damage == "bit of the facts":
        content[content.index(b'step\\": 10') + 8] ^= 1
    elif damage == "zeros":
        content[-500:] = bytes(500)
    elif damage == "NaN":
        content[-400:] = b"\xff" * 400
    else:
        train(Task(), Batches(), replace(RECIPE, seed=5), tmp_path / "other")
        content = newest(tmp_path / "other").read_bytes()
    path.write_bytes(content)
    if damage == "another run":
        with pytest.raises(CheckpointError, match="seed: 5 then, 0 now"):
            chosen(tmp_path / "part")
        return
    batches = Batches()
    with pytest.warns(UserWarning, match=f"damaged checkpoint passed over: .*{path.name}"):
        assert same(chosen(tmp_path / "part", batches=batches), whole)
    assert batches.asked == list(range(8, 12))


# full disks


def test_a_student_that_could_not_be_written_is_finished_in_little_room(manifest, tmp_path):
    run(distill(manifest, tmp_path / "whole"))
    out = tmp_path / "out"
    run(distill(manifest, out))
    (out / "student.safetensors").unlink()
    size = (tmp_path / "whole" / "student.safetensors").stat().st_size
    said = one_line(command(*distill(manifest, out), limit=size // 2))
    assert "student.safetensors: cannot be written: larger than a file may be here" in said
    assert not (out / "student.safetensors").exists() and not list(out.glob(".*.partial*"))
    assert (
        command(*distill(manifest, out), limit=size + 4096).returncode == 0
    )  # the checkpoints would not fit
    assert (out / "student.safetensors").read_bytes() == (
        tmp_path / "whole" / "student.safetensors"
    ).read_bytes()


def test_a_finished_run_needs_no_room_for_checkpoints(tmp_path, monkeypatch):
    train(Task(), Batches(), RECIPE, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    assert train(Task(), Batches(), RECIPE, tmp_path)[-1]["step"] == 12
    with pytest.raises(TrainingError, match="make room"):
        train(Task(), Batches(), RECIPE, tmp_path / "new")


@pytest.fixture
def full(tmp_path):
    """A folder on a file system of 1.5 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    with suppress(subprocess.CalledProcessError):
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills_up_keeps_the_checkpoint_before(full):
    class Large(Task):
        def __init__(self):
            super().__init__()
            self.wide = torch.nn.Linear(64, 128)  # 33 kB, 100 with its moments

        def forward(self, batch):
            loss, parts = super().forward(batch)
            return loss + 0 * self.wide(batch.waves.new_ones(1, 64)).sum(), parts

    class Filling(Batches):
        def batch(self, step):
            if step == 6:
                (full / "else").write_bytes(bytes(shutil.disk_usage(full).free - 50_000))
            return super().batch(step)

    with pytest.raises(
        TrainingError, match=r"step-00000008.*the disk is full: make room.*run the same command"
    ):
        train(Large(), Filling(), RECIPE, full / "out")
    assert newest(full / "out").stem == "step-00000004"
    (full / "else").unlink()
    task = Large()
    train(task, Batches(), RECIPE, full / "out")
    whole = Large()
    train(whole, Batches(), RECIPE, full / "whole")
    assert all(torch.equal(weights(task)[n], v) for n, v in weights(whole).items())
    assert json.loads((full / "out" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 12
