"""Runs of reports that go well, fail, are stopped, or meet a full disk; notebooks of a few cells."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from io import BytesIO

import psutil
import pytest
from PIL import Image
from tiny_lessons import GOOD, network_references, run, write_notebook

from kdkit.common.errors import ConfigError, KdkitError
from kdkit.report import run_report
from kdkit.report.record import read_run

WAIT = """
    import pathlib, time
    while not (pathlib.Path(out).parent / "go").exists():
        time.sleep(0.1)  # wait
"""


def test_a_good_run(tmp_path, capfd, monkeypatch):
    # a kernel "python3" that the user registered from another, broken environment must not be taken
    spec = tmp_path / "jupyter/kernels/python3/kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(
        json.dumps({"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    write_notebook(tmp_path / "notebooks", "01_first", GOOD, title="What layers know")
    figure = """
        from matplotlib.figure import Figure
        figure = Figure()
        figure.subplots().plot([1, 2])
        results.figure("f", figure, "It rises", alt="a rising line")
        results.metric("saw the first", (__import__("pathlib").Path(out) / "metrics/01_first.json").is_file())
    """
    write_notebook(tmp_path / "notebooks", "02_second", figure, title="Second")
    status, metrics, page = run(tmp_path, seed=5, overrides={"factor": 2.5})

    assert status == 0 and metrics["status"] == "done"
    assert [n["status"] for n in metrics["notebooks"]] == ["done", "done"]
    first = metrics["metrics"]["01_first"]
    assert first["interpreter"]["value"] == sys.executable
    assert first["parameters"]["value"] == "smoke 5 2.5"
    assert metrics["metrics"]["02_second"]["saw the first"]["value"] is True
    assert [s["name"] for s in metrics["systems"]] == ["Tiny teacher", "thin <fbank>"]

    assert network_references(page) == []
    assert "thin &lt;fbank&gt;" in page and "thin <fbank>" not in page
    assert "shipped with the kit" in page and "trained in this run" in page
    found = re.search(
        r'<img src="data:image/png;base64,([\w+/=]+)" alt="a rising line" width="(\d+)" height="(\d+)">', page
    )
    picture = Image.open(BytesIO(base64.b64decode(found[1])))
    assert picture.size == (int(found[2]), int(found[3]))  # room is kept for it, links do not miss
    for name in ("01_first", "02_second"):
        assert f'href="notebooks/{name}.html"' in page
        assert (
            network_references((tmp_path / "out/notebooks" / f"{name}.html").read_text(encoding="utf-8"))
            == []
        )
    said = capfd.readouterr().err
    assert "[1/2] 01_first: done" in said and "[2/2] 02_second: done" in said
    assert "JUPYTER_PATH" not in os.environ

    # a second run replaces the first, whatever that left behind
    (tmp_path / "notebooks" / "02_second.ipynb").unlink()
    (tmp_path / "out/training").mkdir()
    (tmp_path / "out/training/half_done").touch()
    (tmp_path / "out/mine.txt").touch()
    status, metrics, page = run(tmp_path)
    assert status == 0 and list(metrics["metrics"]) == ["01_first"] and "02_second" not in page
    assert not (tmp_path / "out/training/half_done").exists()
    assert not (tmp_path / "out/notebooks/02_second.html").exists()
    assert (tmp_path / "out/mine.txt").exists()


def test_a_failing_cell_keeps_what_was_done_and_is_named(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_first", GOOD)
    bad = [
        'results.metric("before", 1)',
        "## The hard part",
        'raise ValueError("no such <layer>")',
        'results.metric("after", 1)',
    ]
    write_notebook(tmp_path / "notebooks", "02_second", *bad)
    write_notebook(tmp_path / "notebooks", "03_third", GOOD)
    status, metrics, page = run(tmp_path)
    assert status == 1 and metrics["status"] == "failed"
    assert [n["status"] for n in metrics["notebooks"]] == ["done", "failed", "waiting"]
    error = metrics["notebooks"][1]["error"]
    assert error["message"] == "ValueError: no such <layer>" and "The hard part" in error["where"]
    assert "raise ValueError" in error["source"]
    assert list(metrics["metrics"]["02_second"]) == ["before"]
    assert "Failed in 02_second" in page and "no such &lt;layer&gt;" in page and "They do." in page
    assert "no such &lt;layer&gt;" in (tmp_path / "out/notebooks/02_second.html").read_text(encoding="utf-8")
    assert not (tmp_path / "out/notebooks/03_third.ipynb").exists()


def test_a_dead_kernel_is_a_failure(tmp_path):
    write_notebook(
        tmp_path / "notebooks",
        "01_first",
        'results.metric("before", 1)',
        "import os; os.kill(os.getpid(), 9)",
    )
    status, metrics, page = run(tmp_path)
    assert status == 1
    assert "DeadKernelError" in metrics["notebooks"][0]["error"]["message"]
    assert "os.kill" in metrics["notebooks"][0]["error"]["source"]
    assert metrics["metrics"]["01_first"]["before"]["value"] == 1
    assert "Failed in 01_first" in page and (tmp_path / "out/notebooks/01_first.html").is_file()


def test_a_notebook_that_takes_too_long(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_first", 'results.metric("before", 1)', WAIT)
    write_notebook(tmp_path / "notebooks", "02_second", GOOD)
    started = time.monotonic()
    status, made, page = run(tmp_path, timeout=0.1)
    assert status == 1 and time.monotonic() - started < 40
    assert (
        made["notebooks"][0]["error"]["message"]
        == "the notebook took longer than the 0.1 minutes of --timeout"
    )
    assert "wait" in made["notebooks"][0]["error"]["source"]
    assert made["metrics"]["01_first"]["before"]["value"] == 1
    assert "Failed in 01_first" in page and "did not run: <b>02_second</b>" in page
    (tmp_path / "go").touch()
    status, made, page = run(tmp_path, timeout=5, resume=True)
    assert status == 0 and made["status"] == "done" and "Failed" not in page


def wait_for(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def start(tmp_path, *options) -> subprocess.Popen:
    """``kdkit report`` in a process of its own, once the first notebook has said something and waits."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "kdkit", "report", "--profile", "smoke", "--out", str(out), *options]
    process = subprocess.Popen(
        [*command, "--notebooks", str(tmp_path / "notebooks")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # a shell that starts this in the background has SIGINT ignored, which children inherit
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    record = out / "metrics/01_first.json"
    wait_for(lambda: process.poll() is not None or (record.is_file() and "before" in record.read_text()), 120)
    time.sleep(1)
    return process


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_was_done(tmp_path, which):
    write_notebook(tmp_path / "notebooks", "01_first", 'results.metric("before", 1)', WAIT)
    out = tmp_path / "out"
    process = start(tmp_path)
    process.send_signal(which)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and str(out / "index.html") in said
    made = read_run(out)
    assert made["status"] == "interrupted" and made["metrics"]["01_first"]["before"]["value"] == 1
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Stopped in 01_first" in page and "--resume" in page
    assert not (out / ".reserve").exists()


def test_a_run_that_was_killed_goes_on_and_one_that_lives_is_left_alone(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_first", 'results.metric("before", 1)', WAIT, GOOD)
    process = start(tmp_path)
    with pytest.raises(ConfigError, match="another report is running there"):
        run(tmp_path)
    assert read_run(tmp_path / "out")["status"] == "running"
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "This run is not finished" in page
    process.kill()
    process.communicate(timeout=60)
    (tmp_path / "go").touch()
    status, made, _ = run(tmp_path, resume=True)
    assert status == 0 and made["status"] == "done" and made["systems"]
    assert not (tmp_path / "out/.reserve").exists()


STUDY = """
import os, pathlib, time
from kdkit.common.parallel import each_training

def training(number):
    folder = pathlib.Path(out) / "training" / str(number)
    if not (folder / "finding").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"process-{{os.getpid()}}").touch()
        while number > 1 and not pathlib.Path({go!r}).exists():
            time.sleep(0.1)
        (folder / "finding").touch()
    return number

results.metric("before", 1)
results.metric("trainings", len(each_training(training, range(5), 2, "study")))
"""


@pytest.mark.parametrize("which", ["SIGINT", "SIGKILL"])
def test_a_study_in_several_processes_is_stopped_with_them_and_goes_on(tmp_path, which):
    write_notebook(tmp_path / "notebooks", "01_first", STUDY.format(go=str(tmp_path / "go")))
    training = tmp_path / "out/training"
    process = start(tmp_path)
    wait_for(lambda: list(training.glob("3/process-*")), 60)
    process.send_signal(getattr(signal, which))  # by name: Windows, which reads this file too, has no SIGKILL
    process.communicate(timeout=60)
    workers = {int(path.name.partition("-")[2]) for path in training.glob("*/process-*")}
    assert len(workers) == 2
    wait_for(lambda: not any(map(psutil.pid_exists, workers)), 20)
    assert sorted(path.parent.name for path in training.glob("*/finding")) == ["0", "1"]
    (tmp_path / "go").touch()
    status, made, _ = run(tmp_path, resume=True)
    assert status == 0 and made["metrics"]["01_first"]["trainings"]["value"] == 5
    assert [len(list(training.glob(f"{n}/process-*"))) for n in range(4)] == [1, 1, 2, 2]


FULL_DISK = """
mount -t tmpfs -o size=60m tmpfs {out} || exit 77
{kdkit} report --profile smoke --notebooks {notebooks} --out {out}/run
echo first $? ; rm {out}/filler ; cp -r {out}/run {kept}
touch {go}
{kdkit} report --profile smoke --notebooks {notebooks} --out {out}/run --resume
echo second $? ; cp {out}/run/run.json {kept}/second.json
"""


def test_a_full_disk_is_reported_on_that_disk(tmp_path):
    fill = f"""
        results.metric("before", 1)
        print("said before")
        import pathlib
        if not pathlib.Path({str(tmp_path / "go")!r}).exists():
            with open(pathlib.Path(out).parent / "filler", "wb", buffering=0) as file:
                while file.write(bytes(4096)) == 4096:
                    pass
                while True:
                    file.write(bytes(1))
    """
    write_notebook(tmp_path / "notebooks", "01_first", GOOD)
    write_notebook(tmp_path / "notebooks", "02_second", fill, 'results.metric("after", 1)')
    (tmp_path / "disk").mkdir()
    places = {"out": tmp_path / "disk", "notebooks": tmp_path / "notebooks", "kept": tmp_path / "kept"}
    script = FULL_DISK.format(kdkit=f"{sys.executable} -m kdkit", go=tmp_path / "go", **places)
    own = [
        "unshare",
        "--mount",
        *([] if os.getuid() == 0 else ["--user", "--map-root-user"]),
        "sh",
        "-c",
        script,
    ]
    try:
        process = subprocess.run(own, capture_output=True, text=True, timeout=300)
    except FileNotFoundError:
        pytest.skip("no unshare, which makes a small disk")
    if "first" not in process.stdout:
        assert process.returncode in (1, 77), process.stderr
        pytest.skip(f"no small disk can be made here: {process.stderr.strip()}")
    said = process.stdout + process.stderr
    assert "first 1" in process.stdout and "second 0" in process.stdout, said
    assert "Traceback" not in process.stderr, said
    made = read_run(tmp_path / "kept")
    assert made["status"] == "failed" and [n["status"] for n in made["notebooks"]] == ["done", "failed"]
    assert "No space left on device" in made["notebooks"][1]["error"]["message"]
    assert made["metrics"]["02_second"]["before"]["value"] == 1
    page = (tmp_path / "kept/index.html").read_text(encoding="utf-8")
    assert "Failed in 02_second" in page and "No space left on device" in page and "They do." in page
    executed = (tmp_path / "kept/notebooks/02_second.ipynb").read_text(encoding="utf-8")
    assert "results.metric" in executed
    second = read_run(tmp_path / "kept/second.json")
    assert second["status"] == "done" and second["metrics"]["02_second"]["after"]["value"] == 1
    assert second["notebooks"][0] == made["notebooks"][0], (
        "the first notebook was good: it must not run again"
    )


def test_no_room_at_all_is_said_in_words(tmp_path, monkeypatch):
    write_notebook(tmp_path / "notebooks", "01_first", GOOD)

    def full(path, write):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdkit.report.run.write_atomically", full)
    with pytest.raises(KdkitError, match=r"out: no room for a report: .*the disk is full"):
        run(tmp_path)


def test_a_page_that_cannot_be_written_is_a_failure(tmp_path, monkeypatch, capfd):
    write_notebook(tmp_path / "notebooks", "01_first", GOOD)

    def full(out, run, records):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdkit.report.run.write_index", full)
    assert run_report("smoke", tmp_path / "out", notebooks=tmp_path / "notebooks") == 1
    assert "page cannot be written" in capfd.readouterr().err
    assert read_run(tmp_path / "out")["status"] == "failed"
