"""The report: what notebooks hand over, the pages made of it, and runs that go well, fail or are stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from io import StringIO
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kdkit.errors import ConfigError
from kdkit.progress import Progress
from kdkit.report import choose_parameters, declared_parameters, find_notebooks, run_report
from kdkit.report_pages import _place, last_states, mathml, story, write_notebook_html
from kdkit.results import Results, read_results

matplotlib.use("Agg")

PARAMETERS = 'profile = "quick"  # which\nseed = 0\nout = "runs/lab"\nfactor: float = 1.5'
OPEN = """
from kdkit.results import Results
results = Results(out, {name!r}, title={title!r}, profile=profile, seed=seed)
"""


def write_notebook(
    folder: Path, name: str, *code: str, title: str = "A lesson", parameters: str = PARAMETERS
):
    cells = [new_markdown_cell(f"# {title}"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells.append(new_code_cell(OPEN.format(name=name, title=title)))
    for text in code:
        cells.append(
            new_markdown_cell(text) if text.startswith("#") else new_code_cell(textwrap.dedent(text))
        )
    folder.mkdir(exist_ok=True)
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")


def network_references(page: str) -> list[str]:
    """What a browser would load or follow outside the folder (names of XML vocabularies are not loaded)."""
    return re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//[^"'\s)>]+""", page) + re.findall(
        r"<script", page
    )


# ----------------------------------------------------------------------------------------------- what is handed over


def test_results_are_on_disk_at_once_and_read_back(tmp_path):
    results = Results(tmp_path, "02_x", title="X", profile="smoke", seed=3)
    assert read_results(tmp_path, "02_x")["title"] == "X"
    results.metric("wer", np.float32(0.25), interval=(0.2, 0.3), unit="share", source="shipped")
    results.metric("seconds", 3.5, unit="s", timing=True)
    record = read_results(tmp_path, "02_x")
    assert record["metrics"]["wer"] == {
        "value": 0.25,
        "source": "shipped",
        "interval": [0.2, 0.3],
        "unit": "share",
    }
    assert record["metrics"]["seconds"]["timing"] is True
    assert (record["profile"], record["seed"]) == ("smoke", 3)
    assert read_results(tmp_path, "03_y") is None


def test_figures_audio_and_systems(tmp_path):
    from matplotlib.figure import Figure

    results = Results(tmp_path, "01_x")
    figure = Figure()
    figure.subplots().plot([1, 2])
    results.figure("by layer", figure, "Rises.", alt="a line that rises")
    results.audio("hello", np.zeros(800, dtype=np.float32), "Silence")
    results.system(
        "S", "distilled", {"test-clean": (0.2, 0.1, 0.3), "test-other": (0.5,)}, parameters=10, speed=3.0
    )
    results.table("t", [{"a": 1, "b": "x"}, {"a": 2}], "A table")
    record = read_results(tmp_path, "01_x")
    by_kind = {item["kind"]: item for item in record["items"]}
    assert (tmp_path / by_kind["figure"]["file"]).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / by_kind["audio"]["file"]).read_bytes().startswith(b"RIFF")
    assert by_kind["figure"]["alt"] == "a line that rises"
    assert by_kind["table"]["rows"] == [["1", "x"], ["2", ""]]
    assert record["systems"][0]["wer"] == {
        "test-clean": {"value": 0.2, "interval": [0.1, 0.3]},
        "test-other": {"value": 0.5},
    }
    assert not list(tmp_path.rglob(".*")), "temporary files are left"


def test_a_cell_run_twice_replaces_what_it_said(tmp_path):
    results = Results(tmp_path, "01_x")
    results.verdict("a", "seen", "first")
    results.verdict("b", "seen", "other")
    results.verdict("a", "not seen", "second")
    results.system("S", "distilled", {"test-clean": (0.2,)})
    results.system("S", "scratch", {"test-clean": (0.6,)})
    results.system("S", "distilled", {"test-clean": (0.1,)})
    record = read_results(tmp_path, "01_x")
    assert [(i["name"], i.get("text")) for i in record["items"]] == [("a", "second"), ("b", "other")]
    assert [(s["role"], s["wer"]["test-clean"]["value"]) for s in record["systems"]] == [
        ("distilled", 0.1),
        ("scratch", 0.6),
    ]


def test_a_new_collector_forgets_the_last_run(tmp_path):
    first = Results(tmp_path, "01_x")
    first.audio("old", np.zeros(800, dtype=np.float32), "")
    first.metric("old", 1)
    Results(tmp_path, "01_x")
    assert read_results(tmp_path, "01_x")["metrics"] == {}
    assert not list((tmp_path / "audio").rglob("*.wav"))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r: r.metric("m", float("nan")), "m is nan"),
        (lambda r: r.metric("m", [1]), "finite number"),
        (lambda r: r.metric("m", 0.5, interval=(0.7, 0.2)), "upside down"),
        (lambda r: r.metric("m", 0.5, source="guess"), "'guess'.*run, shipped"),
        (lambda r: r.metric("", 1), "no good name"),
        (lambda r: r.system("s", "pupil", {}), "role is 'pupil'"),
        (
            lambda r: r.system("s", "teacher", {"test-clean": (0.1, 0.2)}),
            r"s: wer on test-clean: give \(value,\)",
        ),
        (lambda r: r.verdict("v", "great", ""), "outcome is 'great'"),
    ],
)
def test_a_bad_result_is_refused_by_name(tmp_path, call, words):
    with pytest.raises(ConfigError, match=words):
        call(Results(tmp_path, "01_x"))


def test_two_names_never_share_a_file(tmp_path):
    results = Results(tmp_path, "01_x")
    wave = np.zeros(800, dtype=np.float32)
    results.audio("a/b", wave, "")
    results.audio("a/b", wave, "again")
    with pytest.raises(ConfigError, match="would overwrite 'a/b'"):
        results.audio("a b", wave, "")


def test_a_damaged_record_is_named(tmp_path):
    Results(tmp_path, "01_x")
    path = tmp_path / "metrics" / "01_x.json"
    path.write_text(path.read_text()[:20])
    with pytest.raises(ConfigError, match=r"01_x\.json: not JSON"):
        read_results(tmp_path, "01_x")


# ------------------------------------------------------------------------------------------------------- the story


def system(name, role, value, low, high, **more):
    wer = {"test-clean": {"value": value, "interval": [low, high]}}
    return {"name": name, "role": role, "labels": "10 min", "source": "run", "wer": wer} | {
        "parameters": None,
        "speed": None,
        **more,
    }


def test_the_story_is_computed_from_the_table():
    rows = [
        system("T", "teacher", 0.1, 0.08, 0.12, parameters=4_000_000, speed=50.0),
        system("wide", "distilled", 0.3, 0.28, 0.32, parameters=900_000, speed=100.0),
        system("thin", "distilled", 0.2, 0.18, 0.22, parameters=1_000_000, speed=125.0),
        system("thin", "scratch", 0.5, 0.45, 0.55),
    ]
    text = " ".join(story(rows, "quick")).replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "student, thin (1.00 M parameters, 25 % of the teacher's, 2.5 times its speed), gets 20.0 %" in text
    )
    assert "50.0 % (45.0 to 55.0)" in text
    assert "saves 30.0 points; the intervals do not overlap" in text
    assert "means nothing" in " ".join(story(rows, "smoke"))


@pytest.mark.parametrize(
    ("scratch", "words"),
    [((0.21, 0.19, 0.24), "cannot tell them apart"), ((0.1, 0.08, 0.12), "distillation costs 10.0 points")],
)
def test_the_story_does_not_flatter(scratch, words):
    rows = [system("thin", "distilled", 0.2, 0.18, 0.22), system("thin", "scratch", *scratch)]
    assert words in " ".join(story(rows, "quick"))


def test_the_table_puts_a_student_above_its_twin_from_scratch():
    rows = [system("wide", "scratch", 0.6, 0.5, 0.7), system("thin", "distilled", 0.2, 0.1, 0.3)]
    rows += [system("wide", "distilled", 0.3, 0.2, 0.4), system("T", "teacher", 0.1, 0.0, 0.2)]
    rows += [system("thin", "scratch", 0.5, 0.4, 0.6), system("letters", "baseline", 1.0, 1.0, 1.0)]
    ordered = [(row["name"], row["role"]) for row in sorted(rows, key=_place)]
    assert ordered[0] == ("T", "teacher") and ordered[-1] == ("letters", "baseline")
    assert ordered[1:3] == [("thin", "distilled"), ("thin", "scratch")]
    assert ordered[3:5] == [("wide", "distilled"), ("wide", "scratch")]
    rows = [
        system("thin", role, 0.2, 0.1, 0.3, labels=labels)
        for role in ("scratch", "distilled")
        for labels in ("60 min", "5 min", "10 min")
    ]
    ordered = [(row["labels"], row["role"]) for row in sorted(rows, key=_place)]
    assert ordered == [(f"{n} min", role) for n in (5, 10, 60) for role in ("distilled", "scratch")]


def test_only_the_twin_with_the_same_labels_is_compared():
    rows = [
        system("thin", "distilled", 0.2, 0.1, 0.3),
        system("thin", "scratch", 0.9, 0.8, 1.0, labels="1 min"),
    ]
    assert "from scratch" not in " ".join(story(rows, "quick"))
    assert story([], "quick") == []


# ------------------------------------------------------------------------------------------------- executed notebooks


def test_formulas_become_mathml():
    assert "<mfrac>" in mathml(r"\frac{1}{T}\sum_t |p_t - h_t|", "block")
    assert 'display="block"' in mathml("x", "block")
    assert mathml(r"\left( x <", "inline") == r"<code>\left( x &lt;</code>"


def test_progress_bars_collapse_to_their_last_state():
    assert last_states("a:  0%\ra: 50%\ra: 100%\ndone\r\n") == "a: 100%\ndone\n"


def test_notebook_page_needs_no_network(tmp_path):
    notebook = new_notebook(
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}}
    )
    source = "# Title\n\n$$\\frac{a}{b}$$\nand $x_1$, code `$y$`, [next](02_next.ipynb#part)\n\n## A section"
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Slider(value=3)"}
    outputs = [
        new_output("stream", name="stderr", text="bar: 1%\r"),
        new_output("stream", name="stderr", text="bar: 99%\n"),
        new_output("display_data", data=widget),
        new_output("display_data", data={"image/png": "QUJD", "text/plain": "<Figure>"}),
        new_output("display_data", data={"text/latex": "$\\sqrt{2}$", "text/plain": "sqrt"}),
        new_output(
            "error",
            ename="ValueError",
            evalue="bad <thing>",
            traceback=["\x1b[0;31mValueError\x1b[0m: bad <thing>"],
        ),
    ]
    notebook.cells = [new_markdown_cell(source), new_code_cell("1 < 2", outputs=outputs, execution_count=1)]
    path = tmp_path / "01_x.ipynb"
    nbformat.write(notebook, path)
    html = write_notebook_html(path, "Title", [("01_x", "Title"), ("02_next", "Next")]).read_text(
        encoding="utf-8"
    )
    assert network_references(html) == []
    assert html.count("<math") == 3 and "<mfrac>" in html and "$y$" in html
    assert 'href="02_next.html#part"' in html
    assert "bar: 99%" in html and "bar: 1%" not in html
    assert "Slider(value=3)" in html and "widget-view" not in html
    assert re.search(
        r'<img[^>]*alt="Figure in the section “A section”"[^>]*src="data:image/png;base64,QUJD"', html
    ) or re.search(
        r'<img[^>]*src="data:image/png;base64,QUJD"[^>]*alt="Figure in the section “A section”"', html
    )
    assert "bad &lt;thing&gt;" in html and "ansi-red-fg" in html


# ------------------------------------------------------------------------------------------------------ whole runs

GOOD = """
    import sys
    results.metric("interpreter", sys.executable)
    results.metric("parameters", f"{profile} {seed} {factor}")
    results.system("Tiny teacher", "teacher", {"test-clean": (0.1, 0.08, 0.12)}, parameters=4_000_000, source="shipped")
    results.system("thin <fbank>", "distilled", {"test-clean": (0.2, 0.18, 0.22)}, labels="10 min")
    results.table("t", [{"layer": 1, "accuracy": "51.0 %"}], "By layer")
    results.verdict("layers differ", "seen", "They do.")
"""


def run(tmp_path, **options) -> tuple[int, dict, str]:
    out = tmp_path / "out"
    status = run_report("smoke", out, notebooks=tmp_path / "notebooks", **options)
    return (
        status,
        json.loads((out / "metrics.json").read_text()),
        (out / "index.html").read_text(encoding="utf-8"),
    )


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


def test_ctrl_c_keeps_what_was_done(tmp_path):
    write_notebook(
        tmp_path / "notebooks", "01_first", 'results.metric("before", 1)', "import time; time.sleep(100)"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-m", "kdkit", "report", "--profile", "smoke", "--out", str(out)]
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
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and str(out / "index.html") in said
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["status"] == "interrupted" and metrics["metrics"]["01_first"]["before"]["value"] == 1
    assert "Stopped in 01_first" in (out / "index.html").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------ refused before anything runs


def test_parameters_are_checked_first(tmp_path):
    write_notebook(tmp_path, "01_first")
    paths = find_notebooks(tmp_path)
    assert declared_parameters(paths[0]) == {"profile": "quick", "seed": 0, "out": "runs/lab", "factor": 1.5}
    given = {"profile": "smoke", "seed": 1, "out": "x"}
    assert choose_parameters(paths, {**given, "factor": 2})[paths[0]]["factor"] == 2
    with pytest.raises(ConfigError, match="no notebook has a parameter 'fctor'; there are factor"):
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
    with pytest.raises(ConfigError, match="no profile 'big': choose one of smoke, quick, full"):
        run_report("big", tmp_path / "new", notebooks=tmp_path / "notebooks")
    with pytest.raises(ConfigError, match="no notebooks"):
        run_report("smoke", tmp_path / "new", notebooks=tmp_path / "nowhere")
    (tmp_path / "notebooks/02_broken.ipynb").write_text("{")
    with pytest.raises(ConfigError, match=r"02_broken\.ipynb: not a notebook"):
        run_report("smoke", tmp_path / "new", notebooks=tmp_path / "notebooks")
    assert not (tmp_path / "new").exists()


# -------------------------------------------------------------------------------------------------------- progress


def test_progress_in_a_log_is_plain_and_shows_the_last_output(monkeypatch):
    monkeypatch.setattr("kdkit.progress.LOG_EVERY", 0.05)
    log = StringIO()
    progress = Progress("[1/4] 01_x", 3, stream=log)
    progress.cell([new_markdown_cell("# Title\n## Part two"), new_code_cell("train()")], 1)
    assert progress.where == "cell 2 (under 'Part two')" and progress.source == "train()"
    progress.write("\x1b[32mtraining:  0%\rtraining: 45")
    progress.write("%")
    time.sleep(0.3)
    progress.close("failed", {"where": progress.where, "message": "ValueError: x"})
    lines = log.getvalue().splitlines()
    assert lines[0] == "[1/4] 01_x: 3 cells"
    assert re.fullmatch(r"\[1/4\] 01_x  cell 2/2  0:00  training: 45%", lines[-2])
    assert lines[-1] == "[1/4] 01_x: failed after 0:00, in cell 2 (under 'Part two'): ValueError: x"
    assert "\r" not in log.getvalue() and "\x1b" not in log.getvalue()
