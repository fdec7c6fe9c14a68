"""The report: what notebooks hand over, and the pages made of it."""

import base64
import io
import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from io import StringIO

import matplotlib
import nbformat
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tiny_lessons import network_references

from kdkit.common import wording
from kdkit.common.errors import ConfigError
from kdkit.common.statistics import VERDICTS, Comparison
from kdkit.lessons.profiles import PROFILES
from kdkit.lessons.records import read_results
from kdkit.lessons.results import Results
from kdkit.report.execute import Progress
from kdkit.report.findings import CLAIMS, Claim, answers, comparisons, headline, in_a_sentence, story
from kdkit.report.formula_font import font_face
from kdkit.report.index_page import _place
from kdkit.report.notebook_page import last_states, mathml, plain_warnings, write_notebook_html

matplotlib.use("Agg")

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
    figure.axes[0].plot([3, 1, 2], label="loss")
    results.figure("by step", figure, "Falls.")
    alt = read_results(tmp_path, "01_x")["items"][-1]["alt"]
    assert alt == "Falls. picture: loss from 3 at 0 to 2 at 2, highest 3 at 0."
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


def test_the_interval_of_a_single_utterance_is_left_out(tmp_path):
    none = (float("nan"), float("nan"))
    results, change = Results(tmp_path, "01_x"), Comparison(-0.1, none)
    results.metric("m", 0.5, none)
    results.compare("price", change)
    results.system("S", "distilled", {"test-clean": (0.4, *none)}, against_scratch={"test-clean": change})
    results.system("S", "scratch", {"test-clean": (0.5, *none)})
    record = read_results(tmp_path, "01_x")
    assert "interval" not in record["metrics"]["m"] and "interval" not in record["metrics"]["price"]
    assert record["items"][-1]["outcome"] == "inconclusive"
    assert "too few utterances for an interval" in record["items"][-1]["text"]
    assert record["systems"][0]["wer"] == {"test-clean": {"value": 0.4}}
    assert record["systems"][0]["against_scratch"]["test-clean"] == {"value": -0.1, "verdict": "inconclusive"}
    [sentence] = [text for text in comparisons(record["systems"]) if "paired" in text]
    assert sentence.endswith("inconclusive, WER -10.0 points.")


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
    with pytest.raises(ConfigError, match=r"01_x\.json: cannot be read as JSON .*; remove it"):
        read_results(tmp_path, "01_x")
    for content, said in (
        ("[" * 100_000, "nested too deeply"),
        ('{"title": "\\ud800"}', "surrogates not allowed"),
        ('{"title": NaN}', "NaN is not JSON"),
        ("{}", "'title' is a required property"),
    ):
        path.write_text(content)
        with pytest.raises(ConfigError, match=said):
            read_results(tmp_path, "01_x")
    path.unlink()
    assert read_results(tmp_path, "01_x") is None


@pytest.mark.parametrize(
    "file", ["../../secret.png", "/etc/passwd", "figures/01_x/../../x.html", "figures/01_x/a.html"]
)
def test_a_record_names_only_files_of_its_own(tmp_path, file):
    Results(tmp_path, "01_x").text("a", "b")
    path = tmp_path / "metrics" / "01_x.json"
    record = json.loads(path.read_text())
    record["items"] = [{"kind": "figure", "name": "f", "caption": "c", "alt": "a", "file": file}]
    path.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"items\[0\]\.file: .* does not match"):
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
        "student, thin (1.00 M parameters, 25 % of the teacher's, 2.5 times the teacher's speed), gets 20.0 %"
        in text
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


def test_the_headline_is_computed_from_the_table():
    rows = [
        system("teacher", "teacher", 0.1, 0.08, 0.12, parameters=4_000_000, speed=50.0, source="shipped"),
        system("wide", "distilled", 0.3, 0.28, 0.32, parameters=900_000, speed=100.0),
        system("thin", "distilled", 0.2, 0.18, 0.22, parameters=1_000_000, speed=125.0),
        system("thin", "scratch", 0.1, 0.0, 0.2, labels="60 min"),
        system("thin", "scratch", 0.5, 0.45, 0.55),
    ]
    cards = json.loads(json.dumps(headline(rows), ensure_ascii=False).replace("\N{NO-BREAK SPACE}", " "))
    assert [(c["role"], c["value"], c["interval"]) for c in cards] == [
        ("teacher", "10.0 %", "8.0 to 12.0"),
        ("distilled", "20.0 %", "18.0 to 22.0"),
        ("scratch", "50.0 %", "45.0 to 55.0"),
    ]
    assert cards[0]["lines"] == [
        "4.00 M parameters",
        "50 times real time",
        "10 min of labels",
        "shipped with the kit",
    ]
    assert cards[1]["lines"] == [
        "thin",
        "1.00 M parameters, 25 % of the teacher's",
        "2.5 times the teacher's speed",
        "10 min of labels",
        "trained in this run",
    ]
    assert headline([]) == [] and len(headline(rows[1:2])) == 1


def test_claims_are_answered_by_what_was_found():
    def verdict(notebook, name):
        return {"notebook": notebook, "name": name, "outcome": "better", "text": ""}

    verdicts = [verdict("02_x", "both fast"), verdict("03_x", "slow fast"), verdict("04_x", "other")]
    claim = Claim("c", (("02", "*fast"), ("03", "*fast"), ("04", "*fast")))
    assert [found["name"] for found in answers(claim, verdicts, {})] == ["both fast", "slow fast"]
    assert [found["name"] for found in answers(replace(claim, first=True), verdicts, {})] == ["both fast"]
    claim = Claim("c", (), (("02", "gain", "Gain"),))
    metric = {"value": 0.02, "interval": [0.01, 0.03], "seeds": [0.05, -0.01]}
    for outcome in VERDICTS:  # computed where the comparison was made, not again from its interval
        (found,) = answers(claim, [], {"02_x": {"gain": metric | {"verdict": outcome}}})
        assert found["outcome"] == outcome and found["name"] == "Gain"
    assert found["text"] == "+2.0 points, 95 % interval +1.0 to +3.0, paired; each seed +5.0, -1.0."
    assert answers(claim, [], {"02_x": {}}) == []
    long = {f"gain, {steps} steps": metric | {"verdict": "better"} for steps in ("3,200", "800")}
    claim = Claim("c", (), (("02", "gain*", "Gain"),))
    assert [found["name"] for found in answers(claim, [], {"02_x": long})] == ["Gain, 3,200 steps"]


def test_a_claim_is_answered_in_a_sentence_with_its_budget():
    outcomes = ("inconclusive", "better", "inconclusive")
    found = [{"outcome": outcome, "name": "a", "text": "Live."} for outcome in outcomes]
    claim, sizes = (
        Claim("c", (), budget="{study_steps} steps, {study_seeds}"),
        {"study_steps": 40, "study_seeds": [0, 1]},
    )
    said = "3 findings: 1 better, 2 inconclusive. This run itself: 40 steps, 2 seeds"
    assert in_a_sentence(claim, found, sizes) == f"{said}."
    found[1]["text"] = "Shipped."
    assert in_a_sentence(claim, found, sizes) == f"{said}; what is marked as shipped was trained for longer."
    assert in_a_sentence(replace(claim, budget=""), found[:1], {}) == "1 finding: 1 inconclusive."
    for each in CLAIMS:
        assert "{" not in in_a_sentence(each, found, asdict(PROFILES["quick"])), each.text


def test_numbers_as_people_read_them():
    assert [wording.duration(s) for s in (59, 61, 7380)] == ["59 s", "1 min 01 s", "2 h 03 min"]
    assert wording.moment("2026-05-04T10:00:00+02:00") == "2026-05-04 10:00 +02:00"
    assert (
        wording.moment("2026-05-04T10:00:00+00:00") == "2026-05-04 10:00 UTC" and wording.moment(None) == ""
    )
    assert wording.size(5e8) == "500 MB" and wording.size(2.04e9) == "2.0 GB"
    lines = wording.columns(["a", "b"], [["long cell", "1"], ["a heading over the whole width"], ["x", "22"]])
    assert lines == ["a          b", "long cell  1", "a heading over the whole width", "x          22"]


# ------------------------------------------------------------------------------------------------- executed notebooks


def test_formulas_become_mathml():
    assert "<mfrac>" in mathml(r"\frac{1}{T}\sum_t |p_t - h_t|", "block")
    assert 'display="block"' in mathml("x", "block")
    assert mathml(r"\left( x <", "inline") == r"<code>\left( x &lt;</code>"


def test_progress_bars_collapse_to_their_last_state():
    assert last_states("a:  0%\ra: 50%\ra: 100%\ndone\r\n") == "a: 100%\ndone\n"
    assert last_states("\ra:  0%\ra: 64%\r      \r") == ""


def test_a_page_says_warnings_without_the_folders_of_the_machine_that_ran_it(tmp_path):
    script = tmp_path / "some where.py"
    script.write_text("import warnings\nwarnings.warn('frames are blank: usual at first')\nprint('go on')\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert str(tmp_path) in done.stderr
    assert plain_warnings(done.stderr) == "Warning: frames are blank: usual at first\n"
    assert plain_warnings("step 3: a Warning: none\n  indented\n") == "step 3: a Warning: none\n  indented\n"


def test_notebook_page_needs_no_network(tmp_path):
    notebook = new_notebook(
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}}
    )
    source = "# Title\n\n$$\\frac{a}{b}$$\nand $x_1$, code `$y$`, [next](02_next.ipynb#part)\n\n"
    source += "[words](../docs/glossary.md)\n\n## A section"
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Slider(value=3)"}
    live = {"application/vnd.jupyter.widget-view+json": {"model_id": "2"}, "text/plain": "Slider(value=4)"}
    outputs = [
        new_output("stream", name="stderr", text="bar: 1%\r"),
        new_output("stream", name="stderr", text="bar: 99%\n"),
        new_output("display_data", data=widget),
        new_output("display_data", data={"text/html": "<b class='still-2'>three</b>", "text/plain": "3"}),
        new_output("display_data", data=live),
        new_output("display_data", data={"image/png": "QUJD", "text/plain": "<Figure>"}),
        new_output(
            "display_data", data={"image/png": "QUJE"}, metadata={"image/png": {"alt": "loss from 3 to 2"}}
        ),
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
    assert 'alt="loss from 3 to 2"' in html
    assert "words" in html and "docs/glossary" not in html, "a run folder has no docs"
    assert "bar: 99%" in html and "bar: 1%" not in html
    assert "Slider(value=3)" in html and "widget-view" not in html
    assert "three</b>" in html and "Slider(value=4)" not in html, "the still form is enough"
    assert re.search(
        r'<img[^>]*alt="Figure in the section “A section”"[^>]*src="data:image/png;base64,QUJD"', html
    ) or re.search(
        r'<img[^>]*src="data:image/png;base64,QUJD"[^>]*alt="Figure in the section “A section”"', html
    )
    assert "bad &lt;thing&gt;" in html and "ansi-red-fg" in html


# -------------------------------------------------------------------------------------------------------- progress


def test_progress_in_a_log_is_plain_and_shows_the_last_output(monkeypatch):
    monkeypatch.setattr("kdkit.report.execute.LOG_EVERY", 0.05)
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


def test_a_page_brings_the_font_of_its_formulas():
    page = "<p>Text ж</p>" + mathml(r"H^0 + \sigma(h) \leq \sum_k q", "inline")
    data = re.search(r"base64,([\w+/=]+)", font_face(page))[1]
    with TTFont(io.BytesIO(base64.b64decode(data))) as font:
        has = {chr(code) for code in font.getBestCmap()}
    assert {"H", "𝐻", "σ", "𝜎", "h", "ℎ", "∑", "𝑘", "≤", "+", "0"} <= has
    assert "ж" not in has and "T" not in has and len(data) < 10_000
    assert font_face("<p>Text</p>") == ""
