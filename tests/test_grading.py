"""``kdkit grade``: what a class handed in, what learners may try, and what the lecturer is told."""

import ast
import csv
import gc
import io
import json
import subprocess
import sys
import textwrap
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import made_up_class
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from kdkit.commands.main import app
from kdkit.common.errors import ConfigError
from kdkit.lessons.grading import judge as judging
from kdkit.lessons.grading import wire
from kdkit.lessons.grading.answers import find
from kdkit.lessons.grading.catalogue import read_lessons
from kdkit.lessons.grading.classroom import grade_class, read_rows, write_rows
from kdkit.lessons.grading.confine import around
from kdkit.lessons.grading.judge import Row
from kdkit.lessons.grading.notebooks import Cell, parse, read_cells, read_code
from kdkit.lessons.grading.page import confinement, standings
from kdkit.lessons.grading.process import HERE, Ended, Worker
from kdkit.lessons.grading.submissions import Submission, collect
from kdkit.report.plan import find_notebooks

LESSON = "04_low_resource_finetuning"


@pytest.fixture(scope="module")
def lessons():
    return read_lessons(find_notebooks(made_up_class.SHIPPED.parent))


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """(what the command said, its folder): seven learners, the endless one with two seconds."""
    folder = tmp_path_factory.mktemp("class")
    made_up_class.make(folder / "submissions", "ben dora emil fritz ida jan mallory")
    command = [
        "grade",
        str(folder / "submissions"),
        "--out",
        str(folder / "grades.csv"),
        "--seconds",
        "4",
        "--jobs",
        "2",
    ]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    return result, folder, command


def verdicts(folder, learner):
    rows = [row for row in read_rows(folder / "grades.csv") if row.learner == learner]
    return {int(row.exercise[0]): row.verdict for row in rows if row.exercise}, {
        row.exercise[:1]: row.hint for row in rows
    }


@pytest.mark.parametrize(
    ("learner", "expected"),
    [
        ("ben", ["wrong"] * 4 + ["by hand"]),
        ("dora", ["right", "right", "too long", "right", "by hand"]),
        ("emil", ["crashed", "right", "crashed", "right", "by hand"]),
        ("fritz", ["not answered"] * 5),
        ("ida", ["solution shown"] * 5),
        ("jan", ["right", "not answered", "right", "right", "not answered"]),
        ("mallory", ["crashed", "crashed", "wrong", "wrong", "not answered"]),
    ],
)
def test_a_class_is_graded(graded, learner, expected):
    found, hints = verdicts(graded[1], learner)
    assert [found[number] for number in range(1, 6)] == expected, hints


def test_hints_are_those_of_the_checks(graded):
    _, hints = verdicts(graded[1], "ben")
    assert "Double letters are forgotten" in hints["2"] and "mean of the rates" in hints["4"]
    _, hints = verdicts(graded[1], "emil")
    assert "line 4 of its cell, `sys.exit('right')`" in hints["1"] and "ends its process" in hints["3"]
    assert "frames_needed of the kit is not there" in verdicts(graded[1], "mallory")[1]["2"]


def test_what_cannot_be_read_is_named_and_the_others_are_graded(graded):
    result, folder, _ = graded
    assert result.exit_code == 1 and "7 of 8 notebooks graded" in result.output
    assert "kurt/04_low_resource_finetuning.ipynb: broken JSON in line" in result.output
    page = (folder / "grades.html").read_text(encoding="utf-8")
    assert "1 notebook was not graded" in page and "<script" not in page and "http" not in page
    assert 'aria-label="3 right, 1 solution shown' in page and "Double letters are forgotten" in page


def test_the_same_command_goes_on(graded, monkeypatch):
    _, folder, command = graded
    before = (folder / "grades.csv").read_bytes()

    def start(*_):
        raise AssertionError("nothing is left to run")

    monkeypatch.setattr(judging, "Worker", start)
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert again.exit_code == 1 and (folder / "grades.csv").read_bytes() == before
    made_up_class.make(folder / "submissions", "carla")
    assert "of 8 learners" in CliRunner().invoke(app, command, catch_exceptions=False).output


def test_the_next_week_joins_the_table_and_fresh_begins_a_new_one(tmp_path):
    for week, learner in (("week1", "ida"), ("week2", "fritz")):
        made_up_class.make(tmp_path / week, learner)
        command = ["grade", str(tmp_path / week), "--out", str(tmp_path / "grades.csv")]
        CliRunner().invoke(app, command, catch_exceptions=False)
    learners = [row.learner for row in read_rows(tmp_path / "grades.csv")]
    assert learners == sorted(learners) and set(learners) == {"fritz", "ida", "kurt"}
    CliRunner().invoke(app, [*command, "--fresh"], catch_exceptions=False)
    assert {row.learner for row in read_rows(tmp_path / "grades.csv")} == {"fritz", "kurt"}


def test_a_class_that_is_interrupted_keeps_what_is_done(tmp_path):
    class Interrupted:
        limits, calls, stopped = None, 0, False

        def grade(self, cells):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return [("01", "1 x", "right", "")]

        def stop(self):
            self.stopped = True

    submissions = [Submission(name, name, b'{"cells": []}') for name in "abcd"]
    judge = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        grade_class(judge, submissions, tmp_path / "g.csv")
    assert judge.stopped and len(read_rows(tmp_path / "g.csv")) >= 2
    rows = grade_class(judge, submissions, tmp_path / "g.csv")
    assert [row.learner for row in rows] == ["a", "b", "c", "d"] and judge.calls <= 6


# --- what code may not do ----------------------------------------------------------------------------------------


ATTEMPTS = {
    "network": "socket.socket()",
    "program": "subprocess.run(['true'])",
    "process": "os.fork()",
    "signal": "os.kill(os.getppid(), 0)",
    "write": "open(outside / 'new', 'w')",
    "remove": "os.remove(secret)",
    "chmod": "os.chmod(secret, 0o777)",
    "read": "open(secret).read()",
    "by a link": "(os.symlink(secret, work / 'link'), open(work / 'link').read())",
    "memory of the judge": "open(f'/proc/{os.getppid()}/mem', 'rb')",
}


def attempts(tmp_path, how):
    """{attempt: the error's name, or what it gave}, in a process that is confined by ``how``."""
    for name in ("work", "outside/hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "outside/hidden/solution.py").write_text("secret")
    code = f"""
        import os, socket, subprocess, sys, json
        from pathlib import Path
        sys.path.insert(0, {str(HERE)!r})
        import confine
        work, outside = Path({str(tmp_path / "work")!r}), Path({str(tmp_path / "outside")!r})
        secret, needed = outside / "hidden/solution.py", [Path(sys.prefix), Path(sys.base_prefix)]
        held = confine.{how}
        said = {{}}
        for name, attempt in {ATTEMPTS!r}.items():
            try:
                said[name] = repr(eval(attempt))
            except BaseException as error:
                said[name] = type(error).__name__
        (work / "mine").write_text("x")
        print(json.dumps([held, said]))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp and Landlock are Linux's")
def test_the_kernel_refuses_what_learners_must_not_do(tmp_path):
    held, said = attempts(tmp_path, "by_kernel(work, [outside / 'hidden'], needed)")
    refused = {name for name, what in said.items() if what == "PermissionError"}
    files = {"write", "remove", "read", "by a link", "memory of the judge"}
    assert not held["files"] or files <= refused, said
    assert not held["calls"] or set(ATTEMPTS) - files <= refused, said


def test_python_refuses_it_on_every_system(tmp_path):
    _, said = attempts(tmp_path, "by_python(work, [outside / 'hidden'], needed)")
    assert {name for name, what in said.items() if what != "PermissionError"} <= {"memory of the judge"}, said
    assert "alone" in confinement({"calls": False, "files": False})
    assert "Python" not in confinement({"calls": True, "files": True})


def test_around_leaves_out_what_is_hidden(tmp_path):
    for name in ("a/b/secret", "a/c", "d"):
        (tmp_path / name).mkdir(parents=True)
    assert set(around(tmp_path, [tmp_path / "a/b/secret"])) == {tmp_path / "a/c", tmp_path / "d"}
    assert list(around(tmp_path, [Path("/elsewhere")])) == [tmp_path]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        0.5,
        "text",
        [1, (2.0, "x")],
        torch.ones(2, 0),
        torch.arange(3),
        np.array(["a", "bc"]),
        np.eye(2),
    ],
    ids=repr,
)
def test_values_come_back_as_they_were(value):
    back = wire.load(json.loads(json.dumps(wire.dump(value))))
    assert type(back) is type(value) and repr(back) == repr(value)


def test_whatever_a_process_writes_becomes_a_value_or_an_error():
    assert type(wire.load(wire.dump(object()))).__name__ == "object"
    assert wire.load(wire.dump(torch.ones(2, requires_grad=True))).requires_grad
    wrong = [
        ["array", "|O", [1], "AAAA"],
        ["array", "<f8", [2], "AAAA"],
        ["linear", 1, 2],
        ["list", 5],
        ["x"],
    ]
    wrong += [
        ["tensor", "load", [1], "", False],
        ["tensor", "float32", [9], "AAAA", False],
        ["function", 3],
        {"a": 1},
    ]
    for written in wrong:
        with pytest.raises(ValueError, match=r".+"):
            wire.load(written)
    for line in (b"[]", b"{", b"[" * 10**6, b"\xff"):
        with pytest.raises(ValueError, match=r".+"):
            wire.message(line)


def test_functions_of_the_kit_are_called_with_little_only():
    worker, said = object.__new__(Worker), []
    worker.functions, worker._write = [len], said.append
    worker._serve({"ask": 0, "arguments": [["list", [1, 2]]]})
    worker._serve({"ask": 0, "arguments": [3]})
    assert said[0] == {"result": 2} and "TypeError" in said[1]["raised"]
    with pytest.raises(Ended, match="more to a function of the kit"):
        worker._serve({"ask": 0, "arguments": ["x" * 10**6]})


# --- answers -----------------------------------------------------------------------------------------------------


def answer(lessons, name, *codes):
    lesson = next(lesson for lesson in lessons for e in lesson.exercises if e.name == name)
    exercise = next(e for e in lesson.exercises if e.name == name)
    return find([Cell(True, code) for code in codes], exercise, lesson), exercise


def test_stubs_and_solutions_are_known_whatever_their_layout(lessons):
    for lesson in lessons:
        for exercise in lesson.exercises:
            name = exercise.name
            plain = ast.unparse(ast.parse(exercise.stub)) + "\n# thinking"
            assert answer(lessons, name, plain)[0].verdict == "not answered"
            shown = answer(lessons, name, exercise.stub, ast.unparse(ast.parse(exercise.solution)))[0].verdict
            assert shown in ("", "solution shown")
            longer = len(exercise.solution.splitlines()) > 8 and exercise.steps
            assert shown == "solution shown" or not longer, name
    edits = answer(lessons, "edits")[1].solution
    renamed = edits.replace("row", "line").replace("diagonal", "d").replace("found", "word")
    assert answer(lessons, "edits", renamed)[0].verdict == "solution shown"
    assert answer(lessons, "edits", edits.replace("+ 1", "+ 2"))[0].verdict == ""
    one_line = "def frames_of(samples):\n    return (samples - 400) // 320 + 1"
    assert answer(lessons, "frames_of", one_line)[0].verdict == "", "one line may be hit upon"


def test_an_answer_brings_what_it_needs_and_nothing_else(lessons):
    found, _ = answer(
        lessons,
        "mel_filters",
        "import numpy as np, torch\nteacher = load_teacher('large')",
        "def helper(x):\n    return mel(x) + SHIFT",
        "%time\nSHIFT = 0\n!rm -rf /",
        "def mel_filters(bins, fft, rate, low):\n    return helper(np.linspace(mel(low), 1, bins))",
        "mel_filters = exercises.check_mel_filters(mel_filters)",
    )
    code = "\n".join(source for _, source in found.parts)
    assert "SHIFT = 0" in code and "def helper" in code and "def mel(" in code, "mel is the lesson's own"
    assert (
        "teacher" not in code
        and "exercises" not in code
        and found.parameters == ("bins", "fft", "rate", "low")
    )


def test_an_answer_is_found_under_another_name_and_errors_are_told(lessons):
    check = "edits = exercises.check_edits(my_edits)"
    assert answer(lessons, "edits", "def my_edits(a, b):\n    return 3", check)[0].name == "my_edits"
    assert answer(lessons, "edits", "edits = lambda a, b: 3")[0].value == "lambda a, b: 3"
    broken = answer(lessons, "edits", "def edits(a, b)\n    return 3")[0]
    assert broken.verdict == "crashed" and "cell 1 is no Python: line 1" in broken.hint
    assert answer(lessons, "edits", "x = 1")[0].hint == "no cell defines edits"
    assert read_code([Cell(False, "def edits(): pass")]).bound == {}


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "empty"), (b'{"cells": [', "broken JSON in line 1"), (b"[]", "no notebook"), (b"\xff\xfe", "not UTF-8"),
     (b'{"cells": [{"source": 3}]}', "cell 1 has no source"), (b"[" * 10**6, "nested")],
)  # fmt: skip
def test_what_is_no_notebook_says_why(data, said):
    with pytest.raises(ValueError, match=said):
        read_cells(data)


# --- submissions and the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "learner"),
    [
        ("anna/x.ipynb", "anna"),
        (f"anna_{LESSON}.ipynb", "anna"),
        (f"Copy of {LESSON} ben.ipynb", "ben"),
        (f"{LESSON} (anna).ipynb", "anna"),
        ("homework.ipynb", "homework"),
        ("Anna Muster_123456_assignsubmission_file/x.ipynb", "Anna Muster"),
        ("musteranna_LATE_123_456_x-1.ipynb", "musteranna"),
        ("HW_s42_attempt_2026-10-01-10-00-00_x.ipynb", "s42"),
    ],
)
def test_learners_are_called_as_platforms_call_them(tmp_path, path, learner):
    for place in (path, "anna/.ipynb_checkpoints/x.ipynb", "__MACOSX/x.ipynb"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("{}")
    assert [s.learner for s in collect([tmp_path], [LESSON])] == [learner]


def test_archives_are_read_without_being_unpacked(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("lesson.ipynb", "{}")
    with zipfile.ZipFile(tmp_path / "class.zip", "w") as archive:
        archive.writestr("class/anna/x.ipynb", "{}")
        archive.writestr("class/ben/homework.zip", inner.getvalue())
        archive.writestr("class/../../evil.ipynb", "{}")
    found = collect([tmp_path / "class.zip"])
    assert {"anna", "ben"} == {s.learner for s in found} and not (tmp_path.parent / "evil.ipynb").exists()
    (tmp_path / "bad.zip").write_bytes(b"PK")
    (trouble,) = collect([tmp_path / "bad.zip"])
    assert "archive cannot be read" in trouble.trouble
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigError, match="no notebooks"):
        collect([tmp_path / "nothing"])


def test_a_table_is_read_as_written_and_no_spreadsheet_computes_it(tmp_path):
    rows = [
        Row("ä", "01", "1 x", "wrong", '=HYPERLINK("x")', "a, b.ipynb", "0"),
        Row("b", "", "", "unreadable", "-", "'c", ""),
    ]
    write_rows(tmp_path / "g.csv", rows)
    assert read_rows(tmp_path / "g.csv") == rows
    cells = [cell for line in csv.reader((tmp_path / "g.csv").open(encoding="utf-8-sig")) for cell in line]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="did not write it"):
        read_rows(tmp_path / "other.csv")


def test_the_best_of_two_counts_and_hints_are_pooled(lessons):
    def row(learner, verdict, hint="", notebook="n"):
        return Row(learner, LESSON, "3 the edit distance", verdict, hint, notebook)

    rows = [
        row("a", "wrong", "gives 3, not 4"),
        row("a", "right", notebook="m"),
        row("b", "wrong", "gives 3, not 4"),
    ]
    rows += [row("c", "wrong", "gives 12, not 1"), row("d", "not answered", "the cell is as it ships")]
    (standing,) = standings(rows, lessons)
    assert standing.verdicts == {"right": 1, "wrong": 2, "not answered": 1} and standing.missed == 0.75
    assert standing.hints == [("gives 3, not 4", 2)]


def test_threads_that_parse_at_once_do_not_disturb_each_other():
    class Slow:
        def __del__(self):
            time.sleep(0)  # a finaliser within the parser's work hands over to another thread

    def often(_):
        for _ in range(10):
            slow = Slow()
            slow.itself = slow
            parse(source)

    source = Path(parse.__code__.co_filename).read_text()
    switch, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(1)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(often, range(8))) == [None] * 8
    finally:
        sys.setswitchinterval(switch)
        gc.set_threshold(*threshold)
