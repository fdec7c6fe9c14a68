"""make_models.py: a trial of everything, with the real scripts; failures, Ctrl-C and going on, with small ones."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import make_models
import pytest

from kdkit.recognition.ctc import load_recogniser
from kdkit.report.record import checkpoint_hashes
from kdkit.teachers import ASSETS, load_model, load_teacher

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "data_scripts" / "make_models.py"
LEFT_OUT = {
    "study_losses.json",
    "study_structures.json",
    "study_fbank_levers.json",
    "low_resource.json",
    "convergence.json",
}


def test_a_trial_makes_what_the_notebooks_take(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "trial")]
    first = subprocess.run([*command, "--trial"], capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assets = tmp_path / "trial" / "assets"
    made = {path.name for path in assets.iterdir()}
    shipped = {path.name for path in ASSETS.iterdir() if path.suffix in (".safetensors", ".json")}
    assert made == {name for name in shipped - LEFT_OUT if not name.startswith("digits_")}
    teacher = load_teacher(str(assets / "tiny_teacher.safetensors"))
    assert [stage["steps"] for stage in teacher.meta["history"]] == [4, 4, 4]  # made now, not copied
    for path in assets.glob("tiny_[ds]*.safetensors"):
        assert load_model(path)[2]["steps"] == 4
    for path in assets.glob("recogniser_*.safetensors"):
        assert load_recogniser(path)[1]["steps"] == 4
    scores = json.loads((assets / "metrics.json").read_text())
    found = {(row["system"], row["start"], row["minutes"]) for row in scores}
    assert found == {
        ("teacher", "pretrained", 60), ("tiny-sw-waveform", "distilled", 10), ("tiny-sw-fbank", "swapped", 10),
        *(("tiny-sw-fbank", start, minutes) for start in ("distilled", "scratch") for minutes in (10, 60)),
    }  # fmt: skip
    before = checkpoint_hashes(assets)  # what --resume of a report looks at
    assert subprocess.run([*command, "--trial"]).returncode == 0 and checkpoint_hashes(assets) == before
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and "holds a trial: choose another folder" in again.stderr


def test_too_little_disk_for_another_world_is_said_before_anything_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path / "cache"))
    full = shutil._ntuple_diskusage(100e9, 95e9, 5e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["make_models.py", "--world", "librispeech", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        make_models.main()
    assert ended.value.code == 1 and not out.exists() and not (tmp_path / "cache").exists()
    said = capsys.readouterr().err
    assert said.startswith("error: world librispeech: downloads need 12") and "Make room" in said


@pytest.fixture
def small(tmp_path):
    """A copy of make_models.py whose two stages are scripts of a few lines: their sources, and a way to start it."""
    (tmp_path / "make_first.py").write_text(
        "import pathlib, sys\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"
        "out.mkdir(exist_ok=True)\n"
        "(out / 'runs').open('a').write('x')\n"
        "print('half of it')\n"
        "if (out.parent / 'break').exists(): sys.exit('no speech there')\n"
        "if (out.parent / 'wait').exists(): import time; (out.parent / 'waits').touch(); time.sleep(60)\n"
        "(out / 'first.txt').write_text('made')\n"
    )
    source = SCRIPT.read_text()
    begin, end = source.index("GROUPS = ("), source.index("class Run:")
    groups = 'GROUPS = [[[Stage("the first", "make_first.py", "first", "", "", ("*.txt",))]]]\n\n\n'
    (tmp_path / "make_models.py").write_text(source[:begin] + groups + source[end:])
    out = tmp_path / "out"
    out.mkdir()
    return out, [sys.executable, str(tmp_path / "make_models.py"), "--out", str(out)]


def test_a_failure_is_named_and_the_next_run_goes_on(small):
    out, command = small
    (out / "break").touch()
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert "error: the first: make_first.py ended with status 1 (no speech there); its log: " in failed.stderr
    assert not list((out / "assets").iterdir())
    (out / "break").unlink()
    assert subprocess.run(command).returncode == 0
    assert (out / "assets" / "first.txt").read_text() == "made"
    assert (out / "logs" / "the-first.log").read_text().count("half of it") == 2


@pytest.mark.skipif(os.name == "nt", reason="signals of a terminal")
def test_ctrl_c_ends_the_scripts_too(small):
    out, command = small
    (out / "wait").touch()
    heard = {
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    }  # a shell's background job ignores it
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, **heard)
    while not (out / "waits").exists():
        assert running.poll() is None
        time.sleep(0.05)
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 2 and "models are being made there" in second.stderr
    os.killpg(running.pid, signal.SIGINT)  # as a terminal sends it
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130 and "stopped; what was done is kept: run it again to go on" in said
    assert not list((out / "assets").iterdir())
