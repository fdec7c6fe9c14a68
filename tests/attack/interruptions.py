"""Real commands that are killed at random moments, or whose disk fills up; then made again, and compared."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from judge import HERE, Outcome

LIMIT = 180.0  # seconds for one command
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Job:
    """A command that makes ``result`` in the folder it runs in. ``rows``: of the result each line stands alone."""

    words: tuple[str, ...]
    result: str
    rows: bool = False


SMALL = ("--minutes", "0.5", "--steps", "12", "--batch-seconds", "8")
JOBS = {
    "distill": Job(("distill", "tiny-sw-fbank", *SMALL, "--out", "run"), "run/student.safetensors"),
    "finetune": Job(("finetune", "tiny-sw-fbank", *SMALL, "--out", "run"), "run/recogniser.safetensors"),
    "transcribe": Job(
        ("transcribe", "tiny_sw_fbank_distilled_10", "sound", "--format", "json", "--out", "texts.jsonl"),
        "texts.jsonl", rows=True,
    ),
}  # fmt: skip
INTERRUPTIONS = tuple(f"{what}: {job}" for what in ("kill", "full disk") for job in JOBS)
_first = threading.Lock()


def _command(job: Job) -> list[str]:
    return [sys.executable, "-m", "kdkit", *job.words]


def _environment() -> dict[str, str]:
    search = os.pathsep.join(filter(None, [str(HERE.parent.parent), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": search, "OMP_NUM_THREADS": "1"}


def _prepare(folder: Path) -> None:
    import soundfile
    from entrances import wave

    (folder / "sound").mkdir()
    for i in range(6):
        soundfile.write(folder / "sound" / f"{i}.wav", wave(1 + i), 16_000)


@cache
def undisturbed(name: str) -> tuple[object, float]:
    """What a job makes when nobody disturbs it, and the seconds that it takes."""
    with tempfile.TemporaryDirectory(prefix="kdkit-whole-") as folder:
        _prepare(Path(folder))
        began = time.monotonic()
        done = subprocess.run(
            _command(JOBS[name]), cwd=folder, env=_environment(), capture_output=True, timeout=LIMIT
        )
        assert done.returncode == 0, done.stderr.decode()[-1000:]
        return content(Path(folder, JOBS[name].result), JOBS[name]), time.monotonic() - began


def content(path: Path, job: Job) -> object:
    """The result as something to compare: the rows of a list, or the hash of a file."""
    if job.rows:
        return {json.loads(row)["file"]: json.loads(row)["text"] for row in path.read_text().splitlines()}
    return hashlib.sha256(path.read_bytes()).hexdigest()


def interrupt(name: str, seed: int, root: Path) -> Outcome:
    """One interruption of one job."""
    what, _, which = name.partition(": ")
    with _first:
        whole, seconds = undisturbed(which)
    folder = Path(tempfile.mkdtemp(dir=root))
    try:
        _prepare(folder)
        trial = killed if what == "kill" else with_a_full_disk
        case, verdict, said = trial(JOBS[which], random.Random(f"{name}/{seed}"), folder, whole, seconds)
        return Outcome(name, case, seed, verdict, said)
    except subprocess.TimeoutExpired:
        return Outcome(name, f"seed {seed}", seed, "hang", f"over {LIMIT:.0f} s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def killed(job: Job, rng: random.Random, folder: Path, whole: object, seconds: float) -> tuple[str, str, str]:
    """Killed once or twice, then run to its end: the result is the undisturbed one."""
    shown = []
    for _ in range(rng.choice((1, 1, 2))):
        process = subprocess.Popen(
            _command(job), cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        after, number = rng.uniform(0.1, 1.1) * seconds, rng.choice(SIGNALS)
        shown.append(f"{signal.Signals(number).name} after {after:.1f} s")
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        said = process.communicate(timeout=LIMIT)[1].decode(errors="replace")
        if number == signal.SIGTERM and "Traceback" in said:
            return ", ".join(shown), "raw", said.strip().splitlines()[-1]
    if job.rows and (folder / job.result).exists():
        kept = content(folder / job.result, job)
        if any(whole.get(file) != text for file, text in kept.items()):
            return ", ".join(shown), "silent", "a text that was kept is another one"
    return (", ".join(shown), *_ended(job, folder, folder, whole))


def with_a_full_disk(
    job: Job, rng: random.Random, folder: Path, whole: object, seconds: float
) -> tuple[str, str, str]:
    """First with too little room, then with enough: a clear line, then the undisturbed result."""
    room = rng.choice((1, 16, 64, 256, 1024, 4096))  # kilobytes for one file, or on the disk
    small = folder / "small"
    small.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={room}k", "kdkit", small], capture_output=True
        ).returncode
        == 0
    )
    case = f"{room} kB {'of disk' if mounted else 'a file'}"
    try:
        if mounted:
            os.symlink(folder / "sound", small / "sound")
            command = _command(job)
        else:
            shutil.copytree(folder / "sound", small / "sound")
            command = ["bash", "-c", f'ulimit -f {room}; trap "" XFSZ; exec "$@"', "-", *_command(job)]
        done = subprocess.run(command, cwd=small, env=_environment(), capture_output=True, timeout=LIMIT)
        said = done.stderr.decode(errors="replace")
        if "Traceback" in said:
            return case, "raw", said.strip().splitlines()[-1]
        if done.returncode < 0:
            return case, "crash", f"signal {-done.returncode}"
        last = [line for line in said.replace("\r", "\n").splitlines() if line.strip()][-1:]
        if done.returncode and not any(line.startswith(("error:", "Error:")) for line in last):
            return case, "raw", f"exit status {done.returncode}: {last}"
        if (
            mounted
            and subprocess.run(["mount", "-o", "remount,size=64m", small], capture_output=True).returncode
        ):
            return case, "clear", said
        verdict, said = _ended(job, small, folder, whole)
        return case, "clear" if verdict == "right" and done.returncode else verdict, said
    finally:
        if mounted:
            subprocess.run(["umount", "-l", small], capture_output=True)


def _ended(job: Job, folder: Path, _: Path, whole: object) -> tuple[str, str]:
    done = subprocess.run(_command(job), cwd=folder, env=_environment(), capture_output=True, timeout=LIMIT)
    if done.returncode:
        said: Sequence[str] = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return "raw", f"made again, it ends with {done.returncode}: {said}"
    found = content(folder / job.result, job)
    return ("right", "") if found == whole else ("silent", "another result than an undisturbed run's")
