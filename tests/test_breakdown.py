"""Where errors are: alignments that give both texts back, sums that give the score back, intervals over speakers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.common.errors import TextError
from kdkit.common.statistics import by_group
from kdkit.recognition.wer import (
    DELETION,
    EQUAL,
    INSERTION,
    SUBSTITUTION,
    by_speaker,
    by_word,
    compare,
    confusions,
    score,
    speaker_interval,
    word_edits,
)

SENTENCE = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat"]), max_size=6).map(" ".join)
PAIRS = st.lists(st.tuples(SENTENCE.filter(bool), SENTENCE), min_size=1, max_size=5)


@settings(deadline=None, max_examples=50)
@given(PAIRS)
def test_alignments_give_both_texts_and_the_score_back(pairs):
    result = score(*map(list, zip(*pairs, strict=True)))
    kinds = []
    for reference, hypothesis in zip(result.references, result.hypotheses, strict=True):
        steps = word_edits(reference, hypothesis)
        assert " ".join(wanted for _, wanted, _ in steps if wanted) == reference
        assert " ".join(found for _, _, found in steps if found) == hypothesis
        assert all((kind == EQUAL) == (wanted == found) for kind, wanted, found in steps)
        kinds += [kind for kind, _, _ in steps]
    counted = (kinds.count(SUBSTITUTION), kinds.count(DELETION), kinds.count(INSERTION))
    assert counted == (result.substitutions, result.deletions, result.insertions)
    words = by_word(result)
    assert sum(w.said for w in words) == result.words
    assert sum(w.substituted for w in words) == result.substitutions
    assert sum(w.deleted for w in words) == result.deletions
    assert sum(w.inserted for w in words) == result.insertions + result.substitutions
    assert sum(times for _, _, times in confusions(result)) == result.substitutions


def test_words_worked_by_hand():
    result = score(["two boats for two", "for the cat"], ["to boats two", "four the cat cat"])
    entry = next(w for w in by_word(result) if w.word == "two")
    assert (entry.said, entry.substituted, entry.deleted, entry.inserted) == (2, 1, 0, 0)
    assert entry.taken_for == (("to", 1),) and entry.substituted + entry.deleted == 1
    assert ("for", "four", 1) in confusions(result)
    assert next(w for w in by_word(result) if w.word == "four").said == 0
    assert word_edits("", "uh huh") == [(INSERTION, "", "uh"), (INSERTION, "", "huh")]


def test_speakers_worked_by_hand():
    result = score(["a b", "a b", "a b c d"], ["a b", "a", "a b c"])
    worst, best = by_speaker(result, ["maria", "peter", "maria"])
    assert (worst.speaker, worst.words, worst.utterances, worst.wer) == ("peter", 2, 1, 0.5)
    assert (best.speaker, best.words, best.utterances, best.wer) == ("maria", 6, 2, pytest.approx(1 / 6))
    assert np.isnan(worst.interval).all()
    assert by_group([1, 2, 3], ["b", "a", "b"]).tolist() == [4, 2]
    assert by_group([1, 2, 3, 4], ["b", "", "a", ""]).tolist() == [
        1,
        3,
    ]  # unknown speakers are not one speaker
    assert by_group([1, 2], ["", ""]).tolist() == []
    assert [part.speaker for part in by_speaker(result, ["maria", "", "maria"])] == ["maria"]
    assert np.isnan(speaker_interval(result, ["", "", ""])).all()
    for count in (2, 4):
        with pytest.raises(TextError, match=f"3 utterances but {count} speakers"):
            by_speaker(result, ["maria"] * count)


def by_voice(hard: int, easy: int) -> tuple:
    """20 utterances each of two easy and two hard voices, 10 words an utterance."""
    speakers = [f"voice {i}" for i in range(4) for _ in range(20)]
    lost = [hard if speaker in ("voice 0", "voice 1") else easy for speaker in speakers]
    reference = "a b c d e f g h i j"
    return score([reference] * 80, [" ".join("abcdefghij"[n:]) for n in lost]), speakers


def test_the_interval_over_speakers_is_the_speaker_bootstrap_and_wider():
    result, speakers = by_voice(hard=8, easy=2)
    low, high = speaker_interval(result, speakers)
    draws = np.random.default_rng(1).integers(0, 4, (4000, 4))
    expected = np.percentile(np.array([0.8, 0.8, 0.2, 0.2])[draws].mean(1), [2.5, 97.5])
    assert (low, high) == pytest.approx(expected, abs=0.01)
    assert high - low > 2 * np.ptp(result.wer_interval)
    assert np.isnan(speaker_interval(result, ["one"] * 80)).all()


def test_a_gain_from_one_voice_alone_is_no_verdict_over_speakers():
    speakers = [f"voice {i}" for i in range(6) for _ in range(10)]
    references = ["a b c d"] * 60
    gained = score(references, ["a b c d" if s == "voice 0" else "a b" for s in speakers])
    baseline = score(references, ["a b"] * 60)
    assert compare(gained, baseline).verdict == "better"
    assert compare(gained, baseline, speakers=speakers).verdict == "inconclusive"
    everywhere = score(references, ["a b c d"] * 60)
    assert compare(everywhere, baseline, speakers=speakers).verdict == "better"
    with pytest.raises(TextError, match="speakers"):
        compare(gained, baseline, speakers=speakers[1:])
