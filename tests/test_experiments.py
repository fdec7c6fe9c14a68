"""Findings of several seeds: what they come to, which of two trials is better, and files of every version."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kdkit.common.errors import ConfigError
from kdkit.lessons.experiments import (
    PHONES,
    Finding,
    budgets_in,
    by_steps,
    changes_over_steps,
    compare,
    interaction,
    load_findings,
    overview,
    save_findings,
    shipped_findings,
    steps_in,
    study_rows,
    study_trials,
    summary,
)
from kdkit.recognition import wer
from kdkit.teachers import ASSETS


def losing(name, minutes, *words, seed=0):
    """A system that loses so many of ten words, in turns, in 60 utterances."""
    counts = tuple(words[i % len(words)] for i in range(60))
    return Finding(name, seed, counts, (10,) * 60, minutes=minutes)


def reading(name, *hits_of_each_seed, total=100):
    """A student whose last layer lets so many of 100 frames be read, of each utterance, with each seed."""
    return [
        Finding(name, seed, tuple(hits), (total,) * len(hits), PHONES)
        for seed, hits in enumerate(hits_of_each_seed)
    ]


def test_help_that_shrinks_with_labels_is_seen():
    found = [losing("a", 1, 3, 4), losing("b", 1, 6), losing("a", 9, 1, 2), losing("b", 9, 2)]
    assert compare(found, "a", "b", 1).difference == pytest.approx(-0.25)
    assert compare(found, "a", "b", 9).difference == pytest.approx(-0.05)
    more = interaction(found, "a", "b", 1, 9)
    assert more.difference == pytest.approx(-0.2) and more.verdict == "better"
    assert more.interval == pytest.approx((-0.2, -0.2))  # the same in every utterance
    assert interaction(found, "a", "b", 9, 1).verdict == "worse"
    assert interaction(found, "a", "b", 1, 1).difference == 0
    assert str(more) == "WER -20.0 points (95 % interval -20.0 to -20.0, paired; one seed)"


def test_a_verdict_asks_every_seed():
    one = [losing("a", 1, 3), losing("b", 1, 6)]
    agreeing = [losing("a", 1, 4, seed=1), losing("b", 1, 6, seed=1)]
    torn = [losing("a", 1, 7, seed=1), losing("b", 1, 6, seed=1)]
    assert compare(one + agreeing, "a", "b", 1).verdict == "better"
    assert compare(one + agreeing, "b", "a", 1).verdict == "worse"
    found = compare(one + torn, "a", "b", 1)
    assert found.interval[1] < 0 and found.verdict == "inconclusive"
    assert found.seeds == {0: pytest.approx(-0.3), 1: pytest.approx(0.1)}
    assert found.each_seed == "-30.0, +10.0" and found.points == "-10.0 (-10.0 to -10.0)"
    only_two = compare([*one, *agreeing, losing("a", 1, 0, seed=2)], "a", "b", 1)
    assert set(only_two.seeds) == {0, 1}  # a seed that one of them lacks is left out


def test_a_training_that_still_improves_decides_nothing():
    def after(steps: int, name: str, errors: int) -> Finding:
        return replace(losing(name, 10, errors), steps=steps)

    found = [after(500, "a", 6), after(500, "b", 8), after(1500, "a", 3), after(1500, "b", 6)]
    found += [after(6000, "a", 3), after(6000, "b", 4)]
    assert steps_in(found, "a", "b") == [500, 1500, 6000]
    early, middle, end = by_steps(found, "a", "b").values()
    assert early.unsettled == ("a", "b") and early.interval[1] < 0 and early.verdict == "inconclusive"
    assert str(early).endswith("; still improving: a, b")
    assert middle.unsettled == end.unsettled == ("b",)  # a has no more to learn
    flat = [*found[:4], after(6000, "a", 3), after(6000, "b", 6)]
    assert by_steps(flat, "a", "b")[6000].verdict == by_steps(flat, "a", "b")[1500].verdict == "better"
    assert not by_steps(found[:2], "a", "b")[500].unsettled  # one length alone tells nothing
    fewer = [replace(one, minutes=1.0) for one in flat]
    assert by_steps([*found, *fewer], "a", "b", 10) == by_steps(found, "a", "b")
    assert by_steps([*found, *fewer], "a", "b", 1)[6000].verdict == "better"
    with pytest.raises(ConfigError, match="'a' was trained for several numbers of steps: say after how many"):
        compare(found, "a", "b")
    with pytest.raises(ConfigError, match="no findings of 'a' after 7 steps"):
        compare(found, "a", "b", steps=7)
    assert "10 min,  6,000 steps: WER" in overview(found)


def test_a_study_of_several_lengths_is_compared_length_by_length():
    def after(steps: int, name: str, *hits_of_each_seed) -> list[Finding]:
        hits = [[hit] * 50 for hit in hits_of_each_seed]
        return [replace(found, steps=steps) for found in reading(name, *hits)]

    long = after(3200, "base", 70) + after(3200, "a", 74)  # the highest budget: one seed, and not every trial
    found = long + after(200, "base", 50, 50) + after(200, "a", 48, 47) + after(200, "b", 51, 49)
    assert [(name, steps) for name, steps, _ in study_trials(found)] == [
        ("base", 200), ("a", 200), ("b", 200), ("base", 3200), ("a", 3200)
    ]  # fmt: skip
    changes = changes_over_steps(found)
    verdicts = {name: {n: change.verdict for n, change in by.items()} for name, by in changes.items()}
    assert verdicts == {"a": {200: "worse", 3200: "better"}, "b": {200: "inconclusive"}}
    rows = study_rows(found)
    assert [row["steps"] for row in rows] == ["200", "200", "200", "3,200", "3,200"]
    assert rows[0]["verdict"] == rows[3]["verdict"] == "" and rows[4]["difference, points"].startswith("+4.0")
    assert changes_over_steps([]) == {}
    alone = after(9, "base", 50) + after(10, "a", 50)  # nothing to compare it with yet
    assert changes_over_steps(alone) == {} and len(study_rows(alone)) == 2


def test_more_hits_are_better_where_more_errors_are_worse():
    rng = np.random.default_rng(0)
    base = rng.integers(40, 60, 50)
    plus, minus = base + 8, base - 3
    theirs = reading("base", base, base)
    assert compare([*theirs, *reading("a", plus, plus + 1)], "a", "base").verdict == "better"
    assert compare([*theirs, *reading("a", minus, minus - 1)], "a", "base").verdict == "worse"
    # better on the mean, but the seeds disagree
    torn = compare([*theirs, *reading("a", plus, minus)], "a", "base")
    assert torn.interval[0] > 0 and torn.verdict == "inconclusive"
    # the seeds agree, but so little that other utterances could undo it
    noise = np.tile([-15, 15], 25)
    slight = compare([*theirs, *reading("a", base + noise + 1, base + noise + 1)], "a", "base")
    assert slight.verdict == "inconclusive"
    equal = compare([*theirs, *reading("a", plus, plus)], "a", "base")
    assert equal.difference == pytest.approx(0.08) and str(equal).startswith("phone accuracy +8.0 points")


def test_the_summary_and_the_overview_have_the_mean_and_every_seed():
    found = summary(reading("a", [60, 40, 50], [70, 50, 60]), "a")
    assert found.value == pytest.approx(0.55) and found.seeds == {0: 0.5, 1: 0.6}
    assert found.interval[0] < 0.55 < found.interval[1]
    found = [losing("a", 1, 3), losing("a", 1, 4, seed=1), losing("b", 0.5, 6)]
    assert [" ".join(line.split()) for line in overview(found).splitlines()] == [
        "a 1 min, 0 steps: WER 35.0 % (35.0 to 35.0); each seed 30.0, 40.0",
        "b 0.5 min, 0 steps: WER 60.0 % (60.0 to 60.0); each seed 60.0",
    ]


def test_one_seed_is_what_the_comparison_of_two_scores_says():
    rng = np.random.default_rng(0)
    references = [" ".join("abcdefgh")] * 40
    texts = [[" ".join("abcdefgh"[k:]) for k in rng.integers(0, 7, 40)] for _ in range(2)]
    scores = [wer.score(references, own) for own in texts]
    found = [
        Finding(name, 0, tuple(s.word_errors), tuple(s.word_counts), minutes=1)
        for name, s in zip("ab", scores)
    ]
    ours, theirs = compare(found, "a", "b"), wer.compare(*scores)
    assert ours.difference == pytest.approx(theirs.difference) and ours.verdict == theirs.verdict
    assert ours.interval == pytest.approx(theirs.interval)
    mean = summary(found, "a", 1)
    assert (mean.value, *mean.interval) == pytest.approx((scores[0].wer, *scores[0].wer_interval))


def test_what_is_missing_is_named():
    found = [losing("a", 1, 3), losing("b", 1, 6, seed=1), losing("b", 9, 1)]
    with pytest.raises(ConfigError, match="no seed in common"):
        compare(found, "a", "b", 1)
    with pytest.raises(ConfigError, match="no findings of 'a' on 9 labelled minutes; there are a on 1 min"):
        compare(found, "a", "b", 9)
    with pytest.raises(ConfigError, match="no findings of 'x'; there are a, b"):
        compare(found, "x", "b")
    with pytest.raises(ConfigError, match="'b' was trained on several label budgets"):
        compare(found, "a", "b")
    other = replace(found[0], name="c", totals=(*found[0].totals[:-1], 99))
    for call in (compare, lambda *args: interaction(*args, 1)):
        with pytest.raises(ConfigError, match="tested on different utterances"):
            call([*found, other], "c", "a", 1)
    assert budgets_in(found) == [1, 9] == budgets_in(found, "b") and budgets_in(found, "a", "b") == [1]


def test_findings_survive_a_file(tmp_path):
    found = [losing("a", 1, 3, 4), replace(losing("b", 1, 6), steps=7, losses={"loss": 0.5})]
    path = tmp_path / "found.json"
    save_findings(path, found, batch_seconds=16)
    assert load_findings(path) == found and json.loads(path.read_text())["batch_seconds"] == 16
    with pytest.raises(ConfigError, match="2 test sets"):
        save_findings(path, [*found, replace(found[0], totals=(9,) * 60)])


@pytest.mark.parametrize("study", ["losses", "structures", "front_ends"])
def test_the_shipped_findings_give_the_rows_of_the_model_card(study):
    rows = study_rows(shipped_findings(f"study_{study}"))
    lines = [f"| {' | '.join(row.values())} |".replace("\N{NO-BREAK SPACE}", " ") for row in rows]
    assert len(rows) >= 4 and set(lines) <= set((ASSETS / "README.md").read_text("utf-8").splitlines())


def test_a_shipped_comparison():
    found = compare(
        shipped_findings("low_resource"), "tiny-sw-waveform distilled", "tiny-sw-waveform scratch", 10
    )
    assert found.verdict == "better" and len(found.seeds) == 2
