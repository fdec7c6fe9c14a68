"""gpu_models.py: a chain of its tasks on a CPU, in miniature; tasks that fail, wait, or would end too late."""

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdkit.recognition.ctc import load_recogniser
from kdkit.students import load_student
from kdkit.teachers import load_teacher

SCRIPTS = Path(__file__).parent.parent / "data_scripts"


@pytest.fixture
def scripts(monkeypatch):
    """The modules gpu_models and gpu_tasks, which worker processes can import, too."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import gpu_models
    import gpu_tasks

    return gpu_models, gpu_tasks


def test_a_chain_in_miniature(tmp_path):
    out = tmp_path / "models"
    command = [sys.executable, str(SCRIPTS / "gpu_models.py"), "--out", str(out), "--jobs", "2"]
    only = ["--only", "tiny-sw-fbank, distilled", "study: fbank, adapted on top"]
    ran = subprocess.run([*command, "--trial", *only], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "0 tasks are left" in ran.stdout
    made = out / "made"
    teacher = load_teacher(str(made / "tiny_teacher.safetensors"))
    assert [stage["stage"] for stage in teacher.meta["history"]] == ["filterbank", "iteration1", "iteration2"]
    assert [stage["minutes"] for stage in teacher.meta["history"][1:]] == [1, 1.2]
    student, about = load_student(made / "tiny_sw_fbank.safetensors")
    assert student.config.bins == 40 and about["teacher"] == "tiny-sw-waveform" and about["steps"] == 3
    recogniser, about = load_recogniser(made / "recogniser_tiny_sw_fbank_distilled_10.safetensors")
    assert recogniser.model.config == student.config and len(about["dev"]) >= 3
    (found,) = (json.loads(path.read_text()) for path in (made / "recognisers").glob("*.json"))
    assert found["test-clean"]["name"] == "tiny-sw-fbank, distilled" and found["test-clean"]["minutes"] == 10
    (study,) = (json.loads(path.read_text()) for path in (made / "studies").glob("*.json"))
    assert study["phones"]["steps"] == 4 and study["phones"]["measure"] == "phone accuracy"
    assert "tiny-sw-fbank, distilled" in ran.stdout and "10 labelled minutes, 3 steps" in ran.stdout

    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    again = subprocess.run([*command, "--trial", *only], capture_output=True, text=True)
    assert again.returncode == 0 and {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    other = subprocess.run(command, capture_output=True, text=True)
    assert other.returncode == 2 and "choose another folder" in other.stderr


def test_what_was_carried_here_is_not_made_again(scripts, tmp_path):
    """On another machine there are the files in OUT/made alone."""
    models, tasks = scripts
    scale = tasks.Scale(tmp_path)
    every = {task.name: task for task in tasks.tasks(scale)}
    assert models.left_to_do(every, scale.made) == list(every)
    scale.made.mkdir()
    (scale.made / tasks.TEACHER).touch()
    (scale.made / "tiny_sw_waveform.safetensors").touch()
    left = models.left_to_do(every, scale.made, ["tiny-sw-waveform, distilled, 1 min"])
    assert left == [
        "speech",
        *(f"tiny-sw-waveform, distilled, 1 min, 3000 steps, seed {seed}" for seed in range(3)),
    ]
    assert not [name for name in models.left_to_do(every, scale.made) if "iteration" in name]
    # the teacher's earlier weights stayed where they were made
    assert not [task.name for task in tasks.tasks(scale) if "heard" in task.name]


def test_every_need_is_a_task_and_names_are_files(scripts, tmp_path):
    _, tasks = scripts
    for share in (1.0, 0.01):
        every = tasks.tasks(tasks.Scale(tmp_path, share=share))
        names = [task.name for task in every]
        assert all(set(task.needs) <= set(names[: names.index(task.name)]) for task in every)
        assert len({task.path for task in every}) == len(set(names))
        assert all(task.path.is_relative_to(tmp_path) and "," not in task.path.name for task in every)


def touch(path: Path, seconds: float = 0.0) -> None:
    time.sleep(seconds)
    path.write_text(str(os.getpid()))


def fails() -> None:
    raise ValueError("no such speech")


def dies() -> None:
    os._exit(1)


def crew(models, tasks, out: Path, some: dict, limit: float = 1e9, jobs: int = 2):
    """A crew for tasks by name: (function or seconds, needs, expected seconds)."""
    scale, made = tasks.Scale(out), []
    scale.made.mkdir(exist_ok=True)
    for name, (work, needs, seconds) in some.items():
        path = scale.made / name
        make = work if callable(work) else functools.partial(touch, path, work)
        made.append(tasks.Task(name, "kind", path, make, needs, seconds))
    return models.Crew(made, scale, jobs, limit)


def test_failures_stop_what_needs_them(scripts, tmp_path, capsys):
    models, tasks = scripts
    failing = crew(
        models, tasks, tmp_path,
        {"bad": (fails, (), 1), "after": (0, ("bad",), 1), "good": (0, (), 1), "later": (0, ("good",), 1)},
    )  # fmt: skip
    assert failing.work() == {"bad"}
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"good", "later"}
    assert "bad failed: no such speech; its log: " in capsys.readouterr().out
    assert "ValueError: no such speech" in (tmp_path / "work" / "logs" / "bad.log").read_text()


def test_a_process_that_dies_does_not_stop_the_others(scripts, tmp_path, capsys):
    models, tasks = scripts
    assert crew(models, tasks, tmp_path, {"bad": (dies, (), 1), "good": (0, (), 1)}, jobs=1).work() == {"bad"}
    assert (tmp_path / "made" / "good").exists()
    assert "bad failed: its process was killed three times" in capsys.readouterr().out


def test_nothing_begins_that_would_end_too_late(scripts, tmp_path):
    models, tasks = scripts
    some = {"long": (0, (), 500), "short": (0, (), 1), "last": (0, ("short",), 1)}
    assert crew(models, tasks, tmp_path, some, limit=300).work() == set()
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"short", "last"}


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_the_shell_script_packs_what_a_later_run_needs(tmp_path):
    folder, out = tmp_path / "models", tmp_path / "out"
    for name in (
        "made/studies/one.json",
        "work/logs/one.log",
        "work/teacher/first.safetensors",
        "work/students/big",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    settings = os.environ | {"PYTHON": "true", "FOLDER": str(folder), "OUT": str(out)}
    script = ["sh", str(SCRIPTS / "gpu_models.sh")]

    def packed() -> set[str]:
        subprocess.run(script, env=settings, check=True)
        listed = subprocess.run(
            f"cat {out}/made.tgz.* | tar tzf -", shell=True, capture_output=True, text=True
        )
        return {line for line in listed.stdout.splitlines() if not line.endswith("/")}

    kept = {"made/studies/one.json", "work/logs/one.log"}
    assert packed() == kept | {"work/teacher/first.safetensors"}  # half a teacher
    (folder / "made" / "tiny_teacher.safetensors").touch()
    assert packed() == kept | {"made/tiny_teacher.safetensors"}
    assert subprocess.run(script, env=settings | {"PYTHON": "false"}, capture_output=True).returncode == 1
