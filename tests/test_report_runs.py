"""Runs of reports that go well, fail, are stopped, and go on; notebooks of a few cells."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version

import pytest
import torch
from tiny_lessons import GOOD, PARAMETERS, network_references, run, write_notebook
from typer.testing import CliRunner

from kdkit.cli import app
from kdkit.errors import ConfigError, KdkitError
from kdkit.manifest import read_manifest, write_manifest
from kdkit.profiles import PROFILES
from kdkit.report import choose_parameters, declared_parameters, find_notebooks, run_report
from kdkit.report.plan import parse_settings
from kdkit.report.provenance import PARTS, changes, code_version, fingerprints, provenance
from kdkit.report.record import read_run
from kdkit.results import Results, read_results
from kdkit.teachers import ASSETS

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
    assert re.search(r'<img src="data:image/png;base64,[A-Za-z0-9+/=]+" alt="a rising line"', page)
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
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        record = out / "metrics/01_first.json"
        if record.is_file() and "before" in record.read_text():
            break
        time.sleep(0.2)
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
    assert not (out / ".reserve").exists() and not (out / ".lock").exists()


def test_a_run_that_was_killed_goes_on_and_one_that_lives_is_left_alone(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_first", 'results.metric("before", 1)', WAIT, GOOD)
    process = start(tmp_path)
    with pytest.raises(ConfigError, match="another report is being made there"):
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
    with pytest.raises(KdkitError, match=r"out: no room for a report \(.*No space left"):
        run(tmp_path)


def test_a_page_that_cannot_be_written_is_a_failure(tmp_path, monkeypatch, capfd):
    write_notebook(tmp_path / "notebooks", "01_first", GOOD)

    def full(out, run, records):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdkit.report.run.write_index", full)
    assert run_report("smoke", tmp_path / "out", notebooks=tmp_path / "notebooks") == 1
    assert "page cannot be written" in capfd.readouterr().err
    assert read_run(tmp_path / "out")["status"] == "failed"


# ------------------------------------------------------------------------------------------------------ going on

COUNT = """
    import pathlib
    with open(pathlib.Path(out).parent / "{name}.ran", "a") as file:
        file.write("x")
    weights = pathlib.Path(out) / "training/{name}/weights"
    results.metric("went on from", len(weights.read_text()) if weights.exists() else 0)
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_text("www")
"""


def three(tmp_path, last: str = "") -> None:
    for name, more in (("01_first", GOOD), ("02_second", last), ("03_third", "")):
        write_notebook(tmp_path / "notebooks", name, COUNT.format(name=name), more or "pass")


def ran(tmp_path) -> list[int]:
    files = (tmp_path / f"{name}.ran" for name in ("01_first", "02_second", "03_third"))
    return [len(file.read_text()) if file.exists() else 0 for file in files]


def test_resume_runs_only_what_is_missing(tmp_path, capfd):
    three(tmp_path, 'if not (pathlib.Path(out).parent / "go").exists(): raise ValueError("not yet")')
    status, first, page = run(tmp_path)
    assert status == 1 and ran(tmp_path) == [1, 1, 0]
    assert "did not run: <b>03_third</b>" in page
    assert "kdkit report --profile smoke --seed 0 --out out --resume" in page
    (tmp_path / "go").touch()
    status, second, page = run(tmp_path, resume=True)
    assert status == 0 and second["status"] == "done" and ran(tmp_path) == [1, 2, 1]
    assert "--resume" not in page and "They do." in page
    assert second["notebooks"][0] == first["notebooks"][0] and second["started"] == first["started"]
    assert second["metrics"]["02_second"]["went on from"]["value"] == 3, "what it had trained was thrown away"
    assert second["seconds"] == pytest.approx(sum(n["seconds"] for n in second["notebooks"]))

    capfd.readouterr()  # nothing is left to do
    status, third, _ = run(tmp_path, resume=True)
    assert status == 0 and ran(tmp_path) == [1, 2, 1] and third["notebooks"] == second["notebooks"]
    assert capfd.readouterr().err == ""

    status, fourth, _ = run(tmp_path, resume=True, overrides={"factor": 3.0})
    assert status == 0 and ran(tmp_path) == [2, 3, 2]
    assert "01_first runs anew: other parameters" in capfd.readouterr().err
    assert fourth["metrics"]["02_second"]["went on from"]["value"] == 0, (
        "it went on with other parameters' weights"
    )


def test_resume_sees_what_changed(tmp_path, capfd, monkeypatch):
    three(tmp_path)
    assert run(tmp_path)[0] == 0 and ran(tmp_path) == [1, 1, 1]
    three(tmp_path, "1 + 1")
    assert run(tmp_path, resume=True)[0] == 0 and ran(tmp_path) == [1, 2, 2]
    said = capfd.readouterr().err
    assert "02_second runs anew: another notebook\n" in said
    assert "03_third runs anew: an earlier notebook ran anew\n" in said
    (tmp_path / "out/metrics/03_third.json").write_text("{")
    assert run(tmp_path, resume=True)[0] == 0 and ran(tmp_path) == [1, 2, 3]
    changed = provenance()
    changed["code"] = {**changed["code"], "sources": "other"}
    monkeypatch.setattr("kdkit.report.run.provenance", lambda: changed)
    assert run(tmp_path, resume=True)[0] == 0 and ran(tmp_path) == [2, 3, 4]
    assert "01_first runs anew: another version of kdkit\n" in capfd.readouterr().err


def test_a_fingerprint_covers_what_numbers_depend_on(tmp_path):
    for name in ("01_first", "02_second"):
        write_notebook(tmp_path, name, GOOD)
    paths, made_of = find_notebooks(tmp_path), provenance()
    given = {"profile": "smoke", "seed": 1, "out": "x"}

    def differs(parameters=given, **other) -> list[str]:
        now = fingerprints(paths, dict.fromkeys(paths, parameters), {**made_of, **other})["01_first"]
        return changes(first, now)

    first = fingerprints(paths, dict.fromkeys(paths, given), made_of)["01_first"]
    assert differs() == [] and differs({**given, "out": "y"}) == []
    assert differs({**given, "seed": 2}) == ["other parameters"]
    assert differs(checkpoints={}) == ["other shipped models"]
    assert differs(code={**made_of["code"], "commit": "other"}) == [], (
        "the files count, not the name of the commit"
    )
    environment = ["other packages or another machine"]
    assert differs(packages={**made_of["packages"], "torch": "0"}) == environment
    assert differs(machine={**made_of["machine"], "threads": 64}) == environment
    write_notebook(tmp_path, "00_new", GOOD)
    paths = find_notebooks(tmp_path)
    assert differs() == ["an earlier notebook ran anew"]
    assert set(changes(None, first)) == set(PARTS.values())


def test_only_some_notebooks(tmp_path):
    three(tmp_path)
    status, made, page = run(tmp_path, only=["02"])
    assert status == 0 and made["status"] == "partial" and ran(tmp_path) == [0, 1, 0]
    assert [n["status"] for n in made["notebooks"]] == ["waiting", "done", "waiting"]
    assert "did not run: <b>01_first</b>, <b>03_third</b>" in page
    status, made, page = run(tmp_path, start="02_second")
    assert status == 0 and ran(tmp_path) == [0, 2, 1] and made["status"] == "partial"
    status, made, page = run(tmp_path, only=["01"])
    assert status == 0 and ran(tmp_path) == [1, 2, 1] and made["status"] == "done"
    assert "Not made together" not in page

    three(tmp_path, "1 + 1")
    status, made, page = run(tmp_path, only=["03_third"])
    assert status == 0 and ran(tmp_path) == [1, 2, 2]
    assert made["notebooks"][1]["differs"] == ["another notebook"]
    assert (
        "Not made together with the rest of this page" in page
        and "<b>02_second</b> (another notebook)" in page
    )
    with pytest.raises(ConfigError, match="profile smoke, seed 0: choose another folder, or run all"):
        run(tmp_path, only=["03"], seed=1)


def test_a_choice_that_cannot_be(tmp_path):
    three(tmp_path)
    with pytest.raises(
        ConfigError, match="no notebook is called '9': there are 01_first, 02_second, 03_third"
    ):
        run(tmp_path, only=["9"])
    with pytest.raises(ConfigError, match="several notebooks are called '0'"):
        run(tmp_path, start="0")
    with pytest.raises(ConfigError, match="either --only or --from"):
        run(tmp_path, start="01", only=["02"])
    with pytest.raises(ConfigError, match="--timeout 0: give minutes, more than 0"):
        run(tmp_path, timeout=0)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------ provenance


def test_run_json_says_what_a_run_was_made_of(tmp_path):
    hungry = """
        results.uses_model("teacher", "0123")
        memory = bytearray(b"1") * 400_000_000
        import time; time.sleep(1.5)
    """
    write_notebook(tmp_path / "notebooks", "01_first", GOOD)
    write_notebook(tmp_path / "notebooks", "02_second", hungry)
    _, made, page = run(tmp_path, seed=7, overrides={"factor": 2.0})
    assert (made["profile"], made["seed"], made["parameters"]) == ("smoke", 7, {"factor": 2.0})
    assert made["sizes"]["distill_steps"] == PROFILES["smoke"].distill_steps
    assert made["packages"]["numpy"] == version("numpy") and len(made["packages"]) > 50
    assert made["machine"]["threads"] == torch.get_num_threads()
    assert made["machine"]["precision"] in ("bf16", "fp32") and made["machine"]["device"] in ("cpu", "cuda")
    teacher = ASSETS / "tiny_teacher.safetensors"
    assert made["checkpoints"]["tiny_teacher.safetensors"] == hashlib.sha256(teacher.read_bytes()).hexdigest()
    first, second = made["notebooks"]
    assert first["parameters"] == {"profile": "smoke", "seed": 7, "factor": 2.0}
    assert second["models"] == {"teacher": "0123"}
    assert 20e6 < first["peak_memory"] < second["peak_memory"] - 200e6, (
        "memory of one is not that of the other"
    )
    assert second["peak_memory"] > 400e6
    times = [
        datetime.fromisoformat(t) for t in (made["started"], first["started"], first["ended"], made["ended"])
    ]
    assert times == sorted(times) and all(t.tzinfo for t in times)
    assert made["verdicts"] == [{"notebook": "01_first", "name": "layers differ", "outcome": "seen"}]
    assert "--seed 7 --set &#34;factor=2.0&#34; --out DIR" in page


def test_which_code_it_is(tmp_path, monkeypatch):
    package = tmp_path / "kit/kdkit"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1\n")
    (tmp_path / "kit/pyproject.toml").touch()
    monkeypatch.setattr("kdkit.report.provenance.PACKAGE", package)
    monkeypatch.setattr("kdkit.report.provenance._commit_of_pip", lambda: None)
    monkeypatch.setenv("KDKIT_COMMIT", "abc")
    assert code_version()["commit"] == "abc" and code_version()["dirty"] is None
    git = ["git", "-C", str(tmp_path / "kit"), "-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    clean = code_version()
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "kit/notes.txt").touch()
    assert code_version() == clean
    (package / "b.py").write_text("2\n")
    assert code_version()["dirty"] is True and code_version()["sources"] != clean["sources"]
    (package / "b.py").unlink()
    (package / "a.py").write_bytes(b"1\r\n")
    assert code_version()["sources"] == clean["sources"], "line ends of Windows are no other code"


def test_a_hash_stands_for_the_speech_that_was_used(utterances, tmp_path):
    results = Results(tmp_path, "01_x")
    results.uses_speech("train", utterances)
    results.uses_speech("half", utterances[:5])
    data = read_results(tmp_path, "01_x")["data"]
    assert data["train"]["utterances"] == 10 and data["train"]["minutes"] > data["half"]["minutes"] > 0
    write_manifest(tmp_path / "elsewhere/m.jsonl", utterances)
    results.uses_speech("again", read_manifest(tmp_path / "elsewhere/m.jsonl")[:5])
    results.uses_speech("other", [replace(utterances[0], text="other"), *utterances[1:5]])
    data = read_results(tmp_path, "01_x")["data"]
    assert data["again"] == data["half"] and data["other"]["sha256"] != data["half"]["sha256"]


# ------------------------------------------------------------------------------------ refused before anything runs


def test_parameters_are_checked_first(tmp_path):
    write_notebook(tmp_path, "01_first")
    paths = find_notebooks(tmp_path)
    assert declared_parameters(paths[0]) == {"profile": "quick", "seed": 0, "out": "runs/lab", "factor": 1.5}
    given = {"profile": "smoke", "seed": 1, "out": "x"}
    assert choose_parameters(paths, {**given, "factor": 2})[paths[0]]["factor"] == 2
    with pytest.raises(ConfigError, match="01_first does not have a parameter 'fctor'; there are factor"):
        choose_parameters(paths, {**given, "fctor": 2})
    with pytest.raises(ConfigError, match=r"01_first\.ipynb: parameter factor is a float, not '2'"):
        choose_parameters(paths, {**given, "factor": "2"})
    with pytest.raises(ConfigError, match="seed is a int, not True"):
        choose_parameters(paths, {**given, "seed": True})


@pytest.mark.parametrize(
    ("parameters", "words"),
    [("seed = 0", "lacks profile, out"), ("seed = 1 + x", "plain literals"), ("seed = (", "plain literals")],
)
def test_a_bad_parameters_cell_is_named(tmp_path, parameters, words):
    write_notebook(tmp_path, "01_first", parameters=parameters)
    with pytest.raises(ConfigError, match=rf"01_first\.ipynb: .*{words}"):
        choose_parameters(find_notebooks(tmp_path), {})


def test_places_that_are_not_ours(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_first")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="holds no earlier report"):
        run(tmp_path)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match="is a file"):
        run_report("smoke", tmp_path / "out/thesis.txt", notebooks=tmp_path / "notebooks")
    with pytest.raises(ConfigError, match="no profile 'big': choose one of smoke, quick, full, colab, paper"):
        run_report("big", tmp_path / "new", notebooks=tmp_path / "notebooks")
    with pytest.raises(ConfigError, match="no notebooks"):
        run_report("smoke", tmp_path / "new", notebooks=tmp_path / "nowhere")
    (tmp_path / "notebooks/02_broken.ipynb").write_text("{")
    with pytest.raises(ConfigError, match=r"02_broken\.ipynb: not a notebook"):
        run_report("smoke", tmp_path / "new", notebooks=tmp_path / "notebooks")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("factor=2.5", 2.5),
        ("factor = 2", 2),
        ("name=HUBERT_BASE", "HUBERT_BASE"),
        ("name='HUBERT_BASE'", "HUBERT_BASE"),
        ("name=3", "3"),
        ("name=", ""),
        ("name=a=b", "a=b"),
        ("flag=true", True),
        ("flag=False", False),
        ("anything=[1, 2]", [1, 2]),
    ],
)
def test_settings_have_the_types_of_the_parameters_cell(tmp_path, setting, value):
    more = '\nname = "tiny"\nflag = False\nanything = None'
    write_notebook(tmp_path, "01_first", parameters=PARAMETERS + more)
    paths = find_notebooks(tmp_path)
    (found,) = parse_settings(paths, [setting]).values()
    assert found == value and type(found) is type(value)
    name = setting.partition("=")[0].strip()
    assert (
        choose_parameters(paths, {"profile": "x", "seed": 0, "out": "", name: found})[paths[0]][name] == value
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["factor"], "--set factor: write it as name=value"),
        (["=3"], "write it as name=value"),
        (["seed=3"], "--set seed: it has an option of its own, --seed"),
        (["factor=1", "factor=2"], "--set factor is given twice"),
        (["factor=two"], "--set factor: 'two' is not a float like 1.5"),
        (["fctor=2"], "01_first does not have a parameter 'fctor'; there are factor"),
    ],
)
def test_bad_settings_are_refused_by_name(tmp_path, settings, words):
    write_notebook(tmp_path, "01_first")
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse_settings(find_notebooks(tmp_path), settings)


def test_the_command_line_hands_everything_on(tmp_path, capfd):
    three(tmp_path)
    command = [
        "report",
        "--profile",
        "smoke",
        "--notebooks",
        str(tmp_path / "notebooks"),
        "--out",
        str(tmp_path / "out"),
    ]
    answer = CliRunner().invoke(
        app, [*command, "--only", "01", "--set", "factor=4", "--seed", "3", "--timeout", "5"]
    )
    assert answer.exit_code == 0, answer.output
    made = read_run(tmp_path / "out")
    assert made["notebooks"][0]["parameters"] == {"profile": "smoke", "seed": 3, "factor": 4}
    assert ran(tmp_path) == [1, 0, 0]
    for more, message in (
        (["--set", "fctor=1"], "no notebook has a parameter"),
        (["--profile", "paper"], "README"),
    ):
        answer = CliRunner().invoke(app, [*command, *more])
        assert isinstance(answer.exception, ConfigError) and message in str(answer.exception)
    assert ran(tmp_path) == [1, 0, 0]
