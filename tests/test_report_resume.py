"""Reports that go on after a failure, or run only some notebooks; what a run was made of."""

import hashlib
import html
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version

import pytest
import torch
from tiny_lessons import GOOD, ran, run, three, write_notebook

from kdkit.common.errors import ConfigError
from kdkit.lessons.profiles import PROFILES
from kdkit.lessons.records import read_results
from kdkit.lessons.results import Results
from kdkit.report import find_notebooks
from kdkit.report.record import PARTS, changes, code_version, fingerprints, package_versions, provenance
from kdkit.speech.manifest import read_manifest, write_manifest
from kdkit.teachers import ASSETS


def test_resume_runs_only_what_is_missing(tmp_path, capfd):
    three(tmp_path, 'if not (pathlib.Path(out).parent / "go").exists(): raise ValueError("not yet")')
    status, first, page = run(tmp_path)
    assert status == 1 and ran(tmp_path) == [1, 1, 0]
    assert "did not run: <b>03_third</b>" in page
    assert "kdkit report --profile smoke --seed 0 --out out --resume" in page and "KDKIT_ASSETS" not in page
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
    assert "01_first runs again: other parameters" in capfd.readouterr().err
    assert fourth["metrics"]["02_second"]["went on from"]["value"] == 0, (
        "it went on with other parameters' weights"
    )


def test_resume_sees_what_changed(tmp_path, capfd, monkeypatch):
    three(tmp_path)
    assert run(tmp_path)[0] == 0 and ran(tmp_path) == [1, 1, 1]
    three(tmp_path, "1 + 1")
    assert run(tmp_path, resume=True)[0] == 0 and ran(tmp_path) == [1, 2, 2]
    said = capfd.readouterr().err
    assert "02_second runs again: another notebook\n" in said
    assert "03_third runs again: an earlier notebook ran again\n" in said
    (tmp_path / "out/metrics/03_third.json").write_text("{")
    assert run(tmp_path, resume=True)[0] == 0 and ran(tmp_path) == [1, 2, 3]
    changed = provenance()
    changed["code"] = {**changed["code"], "sources": "other"}
    monkeypatch.setattr("kdkit.report.run.provenance", lambda: changed)
    assert run(tmp_path, resume=True)[0] == 0 and ran(tmp_path) == [2, 3, 4]
    assert "01_first runs again: another version of kdkit\n" in capfd.readouterr().err


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
    assert differs() == ["an earlier notebook ran again"]
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
    assert "--seed 7 --set factor=2.0 --out DIR" in page


@pytest.mark.parametrize(("place", "counts"), [("plugins", True), ("_vendor", False)])
def test_packages_within_a_package_do_not_count(tmp_path, monkeypatch, place, counts):
    """setuptools puts its own on the path when something imports it, which is no change of packages."""
    folder = tmp_path / place
    (folder / "inner-1.0.dist-info").mkdir(parents=True)
    (folder / "inner-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: inner\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(folder)
    assert ("inner" in package_versions()) is counts


def test_a_package_whose_installation_was_broken_off_does_not_count(tmp_path, monkeypatch):
    (tmp_path / "half-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    found = package_versions()
    assert "numpy" in found and "half" not in found and None not in found


def test_which_code_it_is(tmp_path, monkeypatch):
    package = tmp_path / "kit/kdkit"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1\n")
    (tmp_path / "kit/pyproject.toml").touch()
    monkeypatch.setattr("kdkit.report.record.PACKAGE", package)
    monkeypatch.setattr("kdkit.report.record._commit_of_pip", lambda: None)
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


def test_other_models_than_the_shipped_ones_are_called_so(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_first", GOOD)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny_teacher.safetensors").write_bytes(b"of another run")
    command = [sys.executable, "-m", "kdkit", "report", "--profile", "smoke", "--out", str(tmp_path / "out")]
    command += ["--notebooks", str(tmp_path / "notebooks")]
    subprocess.run(command, env=os.environ | {"KDKIT_ASSETS": str(tmp_path / "models")}, check=True)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "made before this run" in page and "shipped with the kit" not in page
    made = json.loads((tmp_path / "out" / "run.json").read_text())
    assert list(made["checkpoints"]) == ["tiny_teacher.safetensors"]
    assert made["assets"] == str(tmp_path / "models")
    assert f"KDKIT_ASSETS={tmp_path / 'models'} kdkit report --profile smoke" in html.unescape(page)
