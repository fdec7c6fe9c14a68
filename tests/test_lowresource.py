"""Does it help more when labels are few? Cases where the answer is known, paired and from intervals."""

import pytest

from kdkit.errors import TextError
from kdkit.lowresource import Interaction, interaction, interaction_of_rates
from kdkit.score import compare, score

REFERENCES = ["a b c d e f g h i j"] * 60


def losing(words: int, some: int = 0):
    """A system that loses ``words`` of ten words, and ``some`` more in every other utterance."""
    return score(REFERENCES, [" ".join("abcdefghij"[words + some * (i % 2) :]) for i in range(60)])


def test_help_that_shrinks_with_labels_is_seen_paired():
    found = interaction(losing(3, 1), losing(6), losing(1, 1), losing(2))
    assert (found.few, found.many) == (pytest.approx(0.25), pytest.approx(0.05))
    assert found.difference == pytest.approx(0.2) and found.verdict == "better"
    assert found.interval == pytest.approx((0.2, 0.2))  # the same in every utterance
    assert interaction(losing(1), losing(2), losing(3), losing(6)).verdict == "not better"


def test_equal_help_is_no_verdict():
    found = interaction(losing(4, 1), losing(5, 1), losing(1), losing(2))
    assert found.difference == pytest.approx(0) and found.verdict == "inconclusive"


def test_the_same_budget_twice_is_nothing_and_the_gain_is_that_of_compare():
    found = interaction(losing(4, 1), losing(6), losing(4, 1), losing(6))
    assert found.difference == 0 == found.interval[0] == found.interval[1]
    assert found.few == pytest.approx(-compare(losing(4, 1), losing(6)).difference)


def test_rates_with_intervals():
    few, many = ((0.5, 0.48, 0.52), (0.7, 0.68, 0.72)), ((0.2, 0.18, 0.22), (0.3, 0.28, 0.32))
    found = interaction_of_rates(few, many)
    assert found.difference == pytest.approx(0.1)
    assert found.interval == pytest.approx((0.06, 0.14))  # four half widths of 0.02
    assert found.verdict == "better" and interaction_of_rates(many, few).verdict == "not better"
    wide = ((0.5, 0.4, 0.6), (0.7, 0.6, 0.8))
    assert interaction_of_rates(wide, many).verdict == "inconclusive"
    assert "+20.0 points with few labels" in str(found)
    assert Interaction(0.1, 0.1, (-0.1, 0.1)).verdict == "inconclusive"


def test_other_references_are_refused():
    with pytest.raises(TextError, match="same ones"):
        interaction(score(["a"], ["a"]), losing(1), losing(1), losing(1))
