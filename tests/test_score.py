"""Error rates against jiwer, intervals against a bootstrap written out, verdicts where the answer is known."""

import json

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.common.errors import TextError
from kdkit.common.statistics import ratio_interval, verdict
from kdkit.recognition.wer import compare, describe_collapse, score
from kdkit.speech.text import Vocabulary

SENTENCE = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat"]), max_size=6).map(" ".join)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(SENTENCE.filter(bool), SENTENCE), min_size=1, max_size=5))
def test_rates_are_those_of_jiwer(pairs):
    references, hypotheses = map(list, zip(*pairs, strict=True))
    result = score(references, hypotheses)
    assert result.wer == pytest.approx(jiwer.wer(references, hypotheses))
    assert result.cer == pytest.approx(jiwer.cer(references, hypotheses))
    counts = jiwer.process_words(references, hypotheses)
    assert (
        result.errors
        == counts.substitutions + counts.deletions + counts.insertions
        == sum(result.word_errors)
    )


def test_counts_worked_by_hand():
    result = score(["the cat sat", "a mat"], ["the mat sat on", "mat"])
    assert (result.substitutions, result.deletions, result.insertions) == (1, 1, 1)
    assert (result.words, result.utterances, result.word_errors) == (5, 2, (2, 1))
    assert result.wer == 3 / 5


def test_text_is_cleaned_on_both_sides():
    assert score(["The  cat"], [" the CAT "]).wer == 0
    assert score(["“The café,” it’s said."], ["the cafe it's said"]).wer == 0
    assert score(["the cafe"], ["The café!"]).wer == 0
    assert (
        score(["it's so"], ["it's ' so"]).insertions == 1
    )  # what is written in the alphabet is taken at its word
    result = score(["AT&T has 7"], ["at t has seven"])
    assert (result.references, result.wer) == (("at&t has 7",), 1.0)  # what nobody can know is not guessed


def test_an_empty_reference_counts_insertions_only():
    result = score(["", "a b"], ["uh huh", "a b"])
    assert (result.insertions, result.words, result.wer) == (2, 2, 1.0)
    assert result.cer == pytest.approx(6 / 3)
    assert score(["", "a b"], ["", "a b"]).wer == 0


def test_an_empty_hypothesis_is_all_deletions():
    assert score(["a b c"], [""]).deletions == 3
    assert score(["a b c"], [""]).cer == 1


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(TextError, match="2 references but 1 hypotheses"):
        score(["a", "b"], ["a"])
    with pytest.raises(TextError, match="none of the 2 references has a word"):
        score(["", " "], ["a", "b"])
    with pytest.raises(TextError, match="none of the 0"):
        score([], [])


def test_interval_is_the_utterance_bootstrap():
    rng = np.random.default_rng(0)
    words = rng.integers(1, 20, 80)
    errors = rng.binomial(words, 0.3)
    draws = rng.integers(0, 80, (4000, 80))
    expected = np.percentile(errors[draws].sum(1) / words[draws].sum(1), [2.5, 97.5])
    low, high = ratio_interval(errors, words)
    assert (low, high) == pytest.approx(expected, abs=0.008)
    assert low < errors.sum() / words.sum() < high
    assert ratio_interval(errors, words) == (low, high), "same seed, same interval"
    assert ratio_interval(errors, words, seed=1) != (low, high)


def test_interval_is_wider_when_errors_come_together():
    words = np.full(100, 10)
    spread, together = np.full(100, 2), np.repeat([10, 0], [20, 80])
    assert np.ptp(ratio_interval(spread, words)) == 0
    assert np.ptp(ratio_interval(together, words)) > 0.1


def test_interval_of_one_utterance_is_unknown():
    alone = score(["a b"], ["a"])
    assert np.isnan(alone.wer_interval).all() and str(alone) == "WER 50.0 %, CER 66.7 %"
    assert json.loads(json.dumps(alone.to_dict(), allow_nan=False))["wer_interval"] is None


def test_two_systems_on_one_utterance_have_no_interval():
    change = compare(score(["a b"], ["a b"]), score(["a b"], ["a"]))
    assert change.verdict == "inconclusive" and change.points == "-50.0"
    assert str(change) == "WER -50.0 points (too few utterances for an interval, paired)"


def test_verdicts():
    references = ["one two three four five"] * 40
    good = score(references, ["one two three four five"] * 30 + ["one two three"] * 10)
    bad = score(references, ["one three"] * 40)
    mixed = score(references, ["one two three"] * 10 + ["one two three four five"] * 30)
    better = compare(good, bad)
    assert better.verdict == "better"
    assert better.difference == pytest.approx(good.wer - bad.wer)
    assert better.interval[0] <= better.difference <= better.interval[1] < 0
    assert compare(bad, good).verdict == "worse"
    assert compare(good, mixed).verdict == "inconclusive"
    assert compare(good, good).interval == (0, 0)
    assert compare(good, good).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("interval", "seeds", "word"),
    [
        ((0.1, 0.2), (), "better"),
        ((0.1, 0.2), (0.3, 0.01), "better"),
        ((0.1, 0.2), (0.3, -0.01), "inconclusive"),
        ((0.1, 0.2), (0.3, 0), "inconclusive"),
        ((0, 0.2), (0.1, 0.1), "inconclusive"),
        ((-0.1, 0), (-0.1, -0.1), "inconclusive"),
        ((-0.2, -0.1), (-0.3, 0.01), "inconclusive"),
        ((-0.2, -0.1), (-0.3, -0.01), "worse"),
        ((-0.2, -0.1), (), "worse"),
        ((float("nan"), float("nan")), (0.1, 0.1), "inconclusive"),
    ],
)
def test_a_verdict_asks_the_interval_and_every_seed(interval, seeds, word):
    assert verdict(interval, seeds) == word


def test_pairing_finds_a_small_difference_that_overlapping_intervals_hide():
    rng = np.random.default_rng(0)
    lost = rng.integers(0, 9, 200)
    references = ["a b c d e f g h i j"] * 200
    worse = score(references, [" ".join("abcdefghij"[n + 1 :]) for n in lost])
    system = score(references, [" ".join("abcdefghij"[n:]) for n in lost])
    assert system.wer_interval[1] > worse.wer - 0.1
    assert compare(system, worse).verdict == "better"


def test_only_the_same_references_are_compared():
    with pytest.raises(TextError, match="different references"):
        compare(score(["a"], ["a"]), score(["b"], ["a"]))


def test_to_dict_is_json_without_texts():
    values = json.loads(json.dumps(score(["a b", "c"], ["a", "c"]).to_dict()))
    assert values["wer"] == pytest.approx(1 / 3)
    assert len(values["wer_interval"]) == 2
    assert "references" not in values


def test_collapse_is_described():
    talking = ["the cat", "a mat", "sat on it", "no", "yes"]
    assert describe_collapse(talking) == ""
    assert "only blanks" in describe_collapse(["", " ", ""])
    assert "4 of 5" in describe_collapse(["", "", "", "", "a"])
    assert "'e'" in describe_collapse(["e"] * 10)
    assert describe_collapse([]) == ""


def test_punctuation_that_a_recogniser_writes_is_no_error():
    written = Vocabulary(("_", " ", *"abcdefghijklmnopqrstuvwxyz'-.,ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    assert score(["a well known dog"], ["A well-known dog."], vocabulary=written).wer == 0
    assert score(["the dog"], ["the ' dog"], vocabulary=written).insertions == 1
