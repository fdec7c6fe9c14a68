"""Runs beside each other: compare, check, list and summary, on runs that are written and not computed."""

import contextlib
import json
import re

import pytest
from tiny_lessons import network_references
from typer.testing import CliRunner

from kdkit.commands.main import app
from kdkit.common.errors import ConfigError
from kdkit.common.statistics import VERDICTS, Comparison
from kdkit.lessons.results import Results
from kdkit.report import index_page
from kdkit.report.compare import (
    Tolerances,
    as_html,
    as_text,
    check,
    conditions,
    load_runs,
    read_tolerances,
    rows_of,
)
from kdkit.report.findings import Claim
from kdkit.report.index_page import as_markdown
from kdkit.report.record import FORMAT, find_runs, main_system, new_entry, read_records, read_run, write_run

MACHINE = {
    "cpu": "Some CPU",
    "gpu": None,
    "cores": 2,
    "threads": 2,
    "device": "cpu",
    "precision": "fp32",
    "python": "3.11",
}
SCORE = (0.2, 0.18, 0.22)


def write(
    folder,
    wer=SCORE,
    accuracy=(0.5, 0.45, 0.55),
    loss=1.25,
    seconds=10.0,
    outcome="better",
    extra=None,
    notebooks=("01_x", "02_y"),
    **more,
):
    """A run with one recogniser, an accuracy with interval, a loss without, a text, a time and a verdict."""
    entries = []
    for name in notebooks:
        entries.append(
            new_entry(name, name) | {"status": "done", "seconds": seconds, "peak_memory": 5 * 10**8}
        )
        results = Results(folder, name, profile="smoke", seed=0)
        if name == "02_y":
            results.system("thin", "distilled", {"test-clean": wer}, labels="10 min", parameters=900_000)
            results.system("T", "teacher", {"test-clean": (0.1, 0.05, 0.15)}, parameters=4_000_000)
            continue
        results.metric("accuracy", accuracy[0], accuracy[1:], unit="share")
        results.metric("loss", loss)
        results.metric("kind", "codebook")
        results.metric("seconds", seconds, unit="s", timing=True)
        results.verdict("distilled against scratch", outcome, "By so much.")
        for key, value in (extra or {}).items():
            results.metric(key, value)
    run = {"format": FORMAT, "profile": "smoke", "sizes": {}, "seed": 0, "parameters": {}, "status": "done"}
    run |= {
        "started": "2026-05-04T10:00:00+02:00",
        "ended": "2026-05-04T10:05:00+02:00",
        "seconds": 2 * seconds,
    }
    run |= {
        "code": {"version": "0.1", "commit": "a" * 40, "dirty": False, "sources": "abc"},
        "machine": MACHINE,
    }
    run |= {
        "packages": {"torch": "2.11", "numpy": "2"},
        "checkpoints": {"t": "1"},
        "notebooks": entries,
        **more,
    }
    write_run(folder, run, read_records(folder, notebooks))
    return folder


def kdkit(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


# -------------------------------------------------------------------------------------------------------- compare


def test_numbers_side_by_side(tmp_path):
    a = write(tmp_path / "a")
    b = write(tmp_path / "b", wer=(0.3, 0.28, 0.32), accuracy=(0.52, 0.5, 0.54), loss=1.5, seconds=20.0)
    rows = {row.name: row for row in rows_of(load_runs([a, b]))}
    wer, accuracy = rows["WER test-clean: thin, distilled, 10 min, run"], rows["accuracy"]
    assert (wer.difference(1), wer.overlap(1)) == ("+10.0 points", "apart")
    assert (accuracy.difference(1), accuracy.overlap(1)) == ("+2.0 points", "overlap")
    assert accuracy.text(0).replace("\N{NO-BREAK SPACE}", " ") == "50.0 % (45.0 to 55.0)"
    assert (rows["loss"].difference(1), rows["loss"].overlap(1)) == ("+0.25", "")
    assert rows["seconds"].difference(1) == "2.00x" and rows["seconds"].timing
    assert rows["kind"].equal and not wer.equal

    answer = kdkit("compare", a, b, "--html", tmp_path / "c.html")
    assert answer.exit_code == 0, answer.output
    said = answer.output.replace("\N{NO-BREAK SPACE}", " ")
    assert re.search(r"WER test-clean: thin.*20.0 % \(18.0 to 22.0\).*30.0 % .*\+10.0 points +apart", said)
    assert "made in the same way" in said and "kind" not in said and "seconds" not in said
    assert "2 numbers are equal; 1 times and speeds are not shown" in said
    assert "kind" in kdkit("compare", a, b, "--all").output
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert network_references(page) == [] and "+10.0 points" in page and page.count("<tr") > 6


def test_three_runs_are_compared_with_the_first(tmp_path):
    runs = [
        write(tmp_path / name, wer=wer)
        for name, wer in (("a", SCORE), ("b", (0.21, 0.19, 0.23)), ("c", (0.1, 0.0, 0.1)))
    ]
    text = as_text(runs, load_runs(runs))
    assert re.search(r"\+1.0 points +overlap +-10.0 points +apart", text)
    assert re.search(r"A +B +C +B - A +intervals +C - A +intervals", text)


def test_what_was_not_the_same_is_said(tmp_path):
    a = write(tmp_path / "a")
    other = {"code": {"version": "0.1", "commit": "b" * 40, "dirty": True, "sources": "xyz"}}
    other |= {
        "machine": MACHINE | {"gpu": "H100", "threads": 8},
        "packages": {"torch": "2.12", "scipy": "1"},
        "seed": 1,
    }
    b = write(tmp_path / "b", outcome="inconclusive", **other)
    found = conditions(load_runs([a, b]))
    assert found == [
        "seed: 0 / 1",
        "code: commit aaaaaaaaaa / commit bbbbbbbbbb with changes",
        "gpu: none / H100",
        "threads: 2 / 8",
        "packages: numpy 2 / -, scipy - / 1, torch 2.11 / 2.12",
    ]
    text = as_text([a, b], load_runs([a, b]))
    assert "made differently:\n  seed: 0 / 1" in text
    assert "01_x distilled against scratch: better / inconclusive" in text
    page = as_html([a, b], load_runs([a, b]))
    assert "threads: 2 / 8" in page and "Verdicts that changed" in page


def test_a_notebook_that_one_run_lacks_is_said_once(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b", notebooks=("01_x",), extra={"new": 3})
    text = as_text([a, b], load_runs([a, b]))
    assert "02_y is not in B" in text and "WER" not in text
    assert re.search(r"new +- +3 +only in one", text)


def places(value, path=()):
    """Every place in a JSON value, as the keys that lead there."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def _refused(run):
    """What read_run says against a run; "" where it takes it."""
    try:
        read_run(run)
    except ConfigError as error:
        return str(error)
    return ""


def test_a_run_of_any_shape_is_read_or_refused(tmp_path):
    """Everything in run.json is taken out, or replaced by something else: one line, or the commands go on."""
    good = write(tmp_path / "runs" / "good")
    text = (good / "run.json").read_text(encoding="utf-8")
    whole = json.loads(text)
    bad = tmp_path / "runs" / "bad"
    bad.mkdir()
    refused = 0
    for path in places(whole):
        for value in (..., None, "x", -1, 5, [], {}, [1], 1e308, True, "2026-99-01T00:00:00"):
            run = json.loads(text)
            place = run
            for key in path[:-1]:
                place = place[key]
            if value is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = value
            (bad / "run.json").write_text(json.dumps(run), encoding="utf-8")
            said = _refused(bad)
            if said:
                assert said.startswith(f"{bad / 'run.json'}: ") and "\n" not in said
                refused += 1
                continue
            found = read_run(bad)
            as_markdown(found)
            as_text([good, bad], load_runs([good, bad]))
            main_system(found)
            with contextlib.suppress(ConfigError):
                check(found, whole)
    assert refused > 500
    answer = kdkit("list", tmp_path / "runs")  # the last one is bad, and does not hide the other
    (bad / "run.json").write_text("[]")
    answer = kdkit("list", tmp_path / "runs")
    assert answer.exit_code == 0 and "cannot be read" in answer.output and "1 of 2" not in answer.output
    assert re.search(r"good +smoke", answer.output)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no report there"),
        ("{", "cannot be read"),
        ("[]", "is not of type 'object'"),
        ('{"format": 0}', "not a run of this version"),
    ],
)
def test_what_is_no_run_is_named(tmp_path, content, words):
    a = write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    if content is not None:
        (tmp_path / "b/run.json").write_text(content)
    with pytest.raises(ConfigError, match=rf"/b(/run\.json)?: .*{words}"):
        load_runs([a, tmp_path / "b"])
    with pytest.raises(ConfigError, match="two to 26 reports"):
        load_runs([a])


# ---------------------------------------------------------------------------------------------------------- check


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"seconds": 1000.0, "outcome": "worse"}, None),  # times and verdicts are left to others
        ({"wer": (0.215, 0.21, 0.23)}, None),  # within, and overlapping
        ({"wer": (0.05, 0.04, 0.06)}, None),  # better by far
        (
            {"wer": (0.3, 0.28, 0.32)},
            r"02_y/WER test-clean: thin, .*: is 30.0 % .*, was 20.0 % .*\+10.0 points, 0.015",
        ),
        ({"accuracy": (0.56, 0.54, 0.58)}, None),  # beyond the tolerance, but the intervals overlap
        (
            {"accuracy": (0.7, 0.65, 0.75)},
            "01_x/accuracy: is 70.0 %",
        ),  # a gain, which somebody should look at
        ({"loss": 1.3}, None),
        ({"loss": 1.33}, r"01_x/loss: is 1.33, was 1.25: \+0.08, 0.0675 allowed"),
        ({"loss": 1.17}, "01_x/loss"),
        ({"extra": {"new": 1}}, None),
        ({"notebooks": ("01_x",)}, "02_y: is missing"),
    ],
)
def test_what_leaves_its_tolerance_is_named(tmp_path, change, problem):
    good, new = read_run(write(tmp_path / "good")), read_run(write(tmp_path / "new", **change))
    found = [text.replace("\N{NO-BREAK SPACE}", " ") for text in check(new, good)]
    assert len(found) == (problem is not None), found
    if problem:
        assert re.search(problem, found[0])
    answer = kdkit("check", tmp_path / "new", tmp_path / "good/run.json")
    assert answer.exit_code == (1 if problem else 0), answer.output
    assert ("1 problem" if problem else "within tolerances") in answer.output


def test_missing_numbers_and_unfinished_notebooks_fail(tmp_path):
    good = read_run(write(tmp_path / "good", extra={"old": 1}))
    new = read_run(write(tmp_path / "new"))
    new["notebooks"][1]["status"] = "failed"
    assert check(new, good) == ["02_y: failed", "01_x/old: is missing, was 1"]
    del new["metrics"]["02_y"]
    assert check(new, good) == ["02_y: failed", "01_x/old: is missing, was 1"]


def test_runs_that_were_asked_for_other_things_are_not_checked(tmp_path):
    good, new = read_run(write(tmp_path / "good")), read_run(write(tmp_path / "new", profile="quick"))
    with pytest.raises(ConfigError, match="profile is quick and was smoke"):
        check(new, good)


def test_runs_are_checked_within_a_world_wherever_its_file_lies(tmp_path):
    mine = {"world": "mine", "parameters": {"world": "/home/ann/mine.toml"}}
    good, new = read_run(write(tmp_path / "good")), read_run(write(tmp_path / "new"))
    assert check(new | mine, good | mine | {"parameters": {"world": "/ci/mine.toml"}}) == []
    with pytest.raises(ConfigError, match="cannot be compared: world is mine and was toy"):
        check(new | mine, good)
    assert check(new | {"world": "toy"}, good) == []  # of a version that kept no world


def test_tolerances_from_a_file(tmp_path):
    rules = {"relative": 0.5, "absolute": 0, "time": 1.5, "only": {"01_*/lo*": {"ignore": True}}}
    (tmp_path / "t.json").write_text(
        json.dumps(rules), encoding="utf-8-sig"
    )  # as editors of Windows write it
    tolerances = read_tolerances(tmp_path / "t.json")
    good = read_run(write(tmp_path / "good"))
    assert check(read_run(write(tmp_path / "new", loss=9.0, wer=(0.3, 0.28, 0.32))), good, tolerances) == []
    slow = read_run(write(tmp_path / "slow", seconds=16.0))
    assert check(slow, good, tolerances)[0] == "01_x: took 1.6 times as long (1.5 allowed)"
    strict = Tolerances(relative=0, absolute=0)
    assert check(read_run(write(tmp_path / "same")), good, strict) == []
    assert len(check(read_run(write(tmp_path / "other", loss=1.2500001)), good, strict)) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "[] is not of type 'object'"),
        ("[" * 100_000, "nested too deeply"),
        ('{"relativ": 0.1}', "'relativ' was unexpected"),
        ('{"absolute": "1"}', "absolute: '1' is not of type 'number'"),
        ('{"absolute": true}', "absolute: True is not of type 'number'"),
        ('{"absolute": NaN}', "NaN is not JSON"),
        ('{"time": -1}', "time: -1 is less than the minimum of 0"),
        ('{"only": {"a": {"ignore": 1}}}', "only.a.ignore: 1 is not of type 'boolean'"),
        (
            '{"only": {"a": {"time": 1}}}',
            "only.a: Additional properties are not allowed ('time' was unexpected)",
        ),
        ('{"only": {"a": 1}}', "only.a: 1 is not of type 'object'"),
    ],
)
def test_bad_tolerances_are_named(tmp_path, text, words):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_tolerances(tmp_path / "t.json")


# ------------------------------------------------------------------------------------------------ list and summary


def test_list_shows_every_run_oldest_first(tmp_path):
    write(tmp_path / "runs/late", started="2026-06-01T00:00:00+00:00")
    write(tmp_path / "runs/group/early", status="failed")
    (tmp_path / "runs/broken").mkdir()
    (tmp_path / "runs/broken/run.json").write_text("{")
    assert [place.name for place, _ in find_runs(tmp_path / "runs")] == ["broken", "early", "late"]
    answer = kdkit("list", tmp_path / "runs")
    lines = answer.output.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert lines[0].split() == [
        "run",
        "profile",
        "world",
        "started",
        "status",
        "notebooks",
        "WER,",
        "test-clean",
    ]
    assert "cannot be read" in lines[1]
    early = (
        r"group/early +smoke +2026-05-04 10:00 \+02:00 +failed +2 of 2 +20.0 % \(18.0 to 22.0\) +thin, dist.*"
    )
    assert re.fullmatch(early, lines[2]) and lines[3].startswith("late")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no reports there"):
        CliRunner().invoke(app, ["report", "list", str(tmp_path / "empty")], catch_exceptions=False)
    with pytest.raises(ConfigError, match="no such folder"):
        find_runs(tmp_path / "nowhere")


def test_the_main_system_is_the_best_student(tmp_path):
    run = read_run(write(tmp_path / "a"))
    assert main_system(run)["name"] == "thin"
    run["systems"] = [system for system in run["systems"] if system["role"] == "teacher"]
    assert main_system(run)["name"] == "T"
    assert main_system({"systems": []}) is None


def test_the_summary_is_markdown(tmp_path):
    run = read_run(write(tmp_path / "a"))
    error = {"where": "cell 5 (under 'A | B')", "message": "ValueError: x", "source": "", "traceback": ""}
    run["notebooks"][1] |= {"status": "failed", "error": error}
    text = as_markdown(run).replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith("## kdkit report: smoke, seed 0: done\n")
    assert "| 01_x | done | 10 s | 500 MB |" in text
    assert "**02_y, cell 5 (under 'A \\| B')**\n\n```\nValueError: x\n```" in text
    assert "| thin, distilled | 10 min | 900 k | 20.0 % (18.0 to 22.0) | run |" in text
    assert "Verdicts: 1 better." in text
    widths = {
        line.count("|") - line.count("\\|")
        for line in text.splitlines()
        if line.startswith(("| rec", "| thin", "|---|---|---|---|-"))
    }
    assert len(widths) == 1
    assert kdkit("summary", tmp_path / "a").exit_code == 0


# ---------------------------------------------------------------------------------------- one verdict, everywhere


@pytest.mark.parametrize(
    ("seeds", "interval", "word"),
    [
        ({0: -0.03, 1: -0.01}, (-0.04, -0.01), "better"),
        ({0: -0.05, 1: 0.01}, (-0.04, -0.01), "inconclusive"),  # the interval alone would say better
        ({0: 0.02, 1: 0.02}, (0.01, 0.03), "worse"),
    ],
)
def test_no_two_pages_of_a_run_disagree(tmp_path, monkeypatch, seeds, interval, word):
    """Claims, story, verdicts, the notebook's section, summary and run.json say what the comparison said."""
    folder, comparison = write(tmp_path / "a"), Comparison(sum(seeds.values()) / 2, interval, seeds)
    results = Results(folder, "01_x", profile="smoke", seed=0)
    results.difference("in a table", comparison)
    results.compare("in a sentence", comparison, "After 9 steps.")
    scores = {"test-clean": (0.30, 0.29, 0.31)}  # unpaired, it would be better in any case
    results.system("S", "distilled", scores, against_scratch={"test-clean": comparison})
    results.system("S", "scratch", {"test-clean": (0.34, 0.33, 0.35)})
    claim = Claim("Claimed.", (("01", "in a sentence"),), (("01", "in a table", "In a table"),))
    monkeypatch.setattr(index_page, "CLAIMS", (claim,))
    records = read_records(folder, ("01_x", "02_y"))
    write_run(folder, read_run(folder), records)
    run = read_run(folder)
    run["machine"] |= {"memory_gb": 8, "gpu_driver": None, "system": "Linux", "torch": "2.11"}
    index_page.write_index(folder, run, records)

    page = (folder / "index.html").read_text(encoding="utf-8")
    chips = [kind for kind in re.findall(r'class="chip ([a-z-]+)"', page) if kind in VERDICTS]
    assert len(chips) >= 5 and set(chips) == {word}  # count, both of the claim, list, section
    assert {metric["verdict"] for metric in run["metrics"]["01_x"].values()} == {word}
    assert [verdict["outcome"] for verdict in run["verdicts"]] == [word]
    told = as_markdown(run)
    assert f"paired: {word}" in told and f"Verdicts: 1 {word}." in told
    assert not any(other in told for other in set(VERDICTS) - {word})


@pytest.mark.parametrize(
    ("world", "profile", "words"),
    [
        ("", "quick", "Teacher, speech and sizes are not the paper's"),
        ("mine", "paper", "Teacher, speech and sizes are not the paper's"),
        ("librispeech", "colab", "Teacher and speech are the paper's, sizes are not"),
        ("librispeech", "paper", "Teacher and speech are the paper's, and sizes where they are known"),
    ],
)
def test_a_page_says_whose_teacher_and_speech_it_is_about(tmp_path, monkeypatch, world, profile, words):
    folder = write(tmp_path / "a")
    results = Results(folder, "01_x", profile=profile, seed=0, world=world)
    results.compare("in a sentence", Comparison(-0.02, (-0.03, -0.01), {0: -0.02}), "After 9 steps.")
    monkeypatch.setattr(index_page, "CLAIMS", (Claim("Claimed.", (("01", "in a sentence"),)),))
    records = read_records(folder, ("01_x",))
    run = read_run(folder) | {"profile": profile, "world": world}
    run["machine"] |= {"memory_gb": 8, "gpu_driver": None, "system": "Linux", "torch": "2.11"}
    index_page.write_index(folder, run, records)
    assert words in (folder / "index.html").read_text(encoding="utf-8")
