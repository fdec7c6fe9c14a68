"""What a lesson says after a guess can say either thing: each sentence is said both ways, by findings that differ."""

from dataclasses import replace

import numpy as np
import pytest

from kdkit.common.statistics import Comparison
from kdkit.lessons import sentences
from kdkit.probing import LayerScore, PhoneProbe
from kdkit.probing.clusters import Usage
from kdkit.speech.phone_classes import phone_class


def scores(*accuracies, half=0.01):
    return tuple(LayerScore(f"H{i}", a, a - half, a + half) for i, a in enumerate(accuracies))


def probe(*accuracies, cnn=0.41, fbank=0.4):
    front_end, line = (
        LayerScore(name, a, a - 0.01, a + 0.01) for name, a in (("CNN", cnn), ("Fbank", fbank))
    )
    return PhoneProbe(
        scores(*accuracies), front_end, line, ("a",), np.eye(1), 10, 10, 2, Comparison(0.05, (0.0, 0.1))
    )


@pytest.mark.parametrize(
    ("ids", "phones", "words"),
    [
        ([1, 1, 1, 2, 2, 2], "aaabbb", ["100.0 % have", "border 0.0 %", "more often", "several frames"]),
        ([1, 2, 3, 4, 4, 5], "aaabbb", ["25.0 %", "more often", "last one frame"]),
        ([1, 2, 3, 3, 5, 6], "aaabbb", ["0.0 % have", "do not change at borders"]),
    ],
)
def test_do_ids_last_as_long_as_phones(ids, phones, words):
    said = sentences.steadiness(ids, phones).replace("\N{NO-BREAK SPACE}", " ")
    assert all(word in said for word in words), said


def test_the_shape_of_the_curve_is_said_as_it_is():
    expected = sentences.shape(probe(0.3, 0.5, 0.6, 0.5))
    assert "+1.0 points" in expected and "as close as expected" in expected
    assert "rises by 20.0 points" in expected and "10.0 points below H2" in expected
    refuted = sentences.shape(probe(0.5, 0.4, 0.5, 0.6, cnn=0.2))
    assert "not close" in refuted and "falls by 10.0" in refuted and "does not fall at the end" in refuted


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ((0.1, 0.2, 0.3), "rise and fall together"),
        ((0.3, 0.2, 0.1), "go opposite ways"),
        ((0.1, 0.0, 0.1), "little to do"),
        ((0.1, 0.1, 0.1), "does not change"),
    ],
)
def test_two_curves_are_compared(other, words):
    said = sentences.fades(scores(0.2, 0.3, 0.4), scores(*other))
    assert words in said and "Phones: highest in H2" in said


def test_mistakes_between_sounds_that_are_alike_are_told_from_others():
    phones = ["p", "b", "a", "i"]
    counts = np.full((4, 4), 5) + 45 * np.eye(4, dtype=int)
    alike = counts.copy()
    alike[0, 1] = alike[2, 3] = 40
    said = sentences.likely_mistakes(alike, phones)
    assert "sounds that are alike" in said and "[b] for [p]" in said
    assert "not between alike sounds" in sentences.likely_mistakes(counts, phones)
    assert sentences.likely_mistakes(np.eye(4), phones) == "There is no mistake."


def test_the_ends_of_the_temperature():
    usage = [Usage(0.03, 1.2, 50, 0.9), Usage(1.0, 95, 98, 0.02)]
    said = sentences.sharpness(usage, 100)
    assert "nearly certain" in said and "says nothing" in said
    said = sentences.sharpness([replace(usage[0], choices=9.0), replace(usage[1], choices=40)], 100)
    assert "not yet one certain" in said and "still not the same" in said


def test_classes_and_chance():
    assert [phone_class(p) for p in ("tʃ", "t", "aɪ", "ŋ", "ɹ", "z", "")] == [
        "affricate",
        "stop",
        "vowel",
        "nasal",
        "approximant",
        "fricative",
        "other",
    ]
    assert sentences.chance(["a", "b", "a", "c"]) == 0.5


def change(points: float, less_is_better: bool = True) -> Comparison:
    """A difference in points, sure to half a point."""
    value = points / 100
    return Comparison(value, (value - 0.005, value + 0.005), {0: value}, less_is_better=less_is_better)


@pytest.mark.parametrize(
    ("own", "same", "words"),
    [
        (-6, -2, "So 4.0 points come from the targets. The rest goes with the structure"),
        (-6, 0.2, "what looked like the price of depth is that of its targets"),
        (-6, -7, "So its targets are not what holds it back"),
        (1, 2, "nothing to explain"),
    ],
)
def test_depth_is_told_from_the_targets(own, same, words):
    said = sentences.same_targets(*(change(points, less_is_better=False) for points in (own, same)))
    assert said.startswith(f"Layer by layer the deepest is {own:+.1f} (") and words in said


def test_adaptation():
    helps, harms = change(2, less_is_better=False), change(-2, less_is_better=False)
    said = sentences.adaptation({"a": harms, "b": harms, "c": change(0, less_is_better=False)})
    assert "Of 3 ways" in said and "0 were better than none and 2 worse (a; b): perhaps" in said
    said = sentences.adaptation({"a": helps})
    assert said == "Of 1 ways to adapt the front-end first, 1 were better than none (a) and 0 worse."


def test_price():
    said = sentences.price({1: change(4), 10: change(3)})
    assert "+4.0, +3.0 points with 1, 10 minutes" in said and "worse at 2, better at 0 of 2 budgets" in said
    assert said.endswith("With 10 minutes it is lower than with 1.")
    assert sentences.price({1: change(-1), 10: change(3)}).endswith("it is no lower than with 1.")


def test_what_held_back():
    levers = {"slow": change(-1), "deep": change(-6)}
    closed = sentences.what_held_back(levers, change(12), change(0))
    assert "slow -1.0 (better), deep -6.0 (better). “deep” brings most" in closed
    assert (
        "from +12.0 (worse) to +0.0 (inconclusive). So most of these words were not lost to Fbank" in closed
    )
    assert "lever that was not pulled" in sentences.what_held_back(levers, change(12), change(5))
    assert "no price to explain" in sentences.what_held_back(levers, change(0), change(-1))


def test_what_the_teacher_gave():
    said = sentences.what_the_teacher_gave(change(-5), change(0))
    assert "-5.0 (-5.5 to -4.5) points with the first front-end (better), +0.0" in said
    assert "does not show that the teacher is needed, nor that it is not" in said
    assert sentences.what_the_teacher_gave(change(-5), change(-3)).endswith("on top of a better front-end.")


def test_curves():
    falling = {"teacher": [(1, 0.9), (10, 0.4)], "scratch": [(1, 0.8), (10, 0.7)]}
    assert (
        sentences.curves(falling)
        == "Lowest: scratch at 1 min, teacher at 10 min. Every curve falls with every budget."
    )
    assert sentences.curves(falling | {"x": [(10, 0.95), (1, 0.9)]}).endswith(
        "do not fall with every budget: x."
    )


def test_where_most():
    few = sentences.where_most("S", {1: change(-9), 10: change(-3)})
    assert "most with 1 minutes of labels (-9.0 (-9.5 to -8.5) points), least with 10" in few
    assert few.endswith("is not refuted here.")
    assert "not better than scratch at any budget" in sentences.where_most("S", {1: change(0), 10: change(1)})
    assert "too few may not teach" in sentences.where_most("S", {1: change(-1), 10: change(-3)})


def test_longer():
    early, late = replace(change(-9), unsettled=("a", "b")), change(-3)
    said = sentences.longer({500: early, 6000: late})
    assert "-9.0 (-9.5 to -8.5) after 500, -3.0 (-3.5 to -2.5) after 6,000. From 500 to 6,000" in said
    assert "the gain shrinks: part of what" in said
    assert said.endswith(
        "After 500 steps a training was still improving, so only the later ones give a verdict; at the "
        "end it is “better”."
    )
    said = sentences.longer({500: late, 6000: replace(early, unsettled=("b",))})
    assert "the gain grows" in said and said.endswith("even at the end (b): this study cannot tell yet.")
    assert sentences.longer({1: early, 2: early}).count("After 1, 2 steps") == 1
    assert sentences.longer({500: late, 6000: late}).endswith("No training was still improving.")
    assert "the gain shrinks" in sentences.longer({500: late, 6000: change(5)}), "and becomes a loss"


def test_words_and_characters():
    said = sentences.words_and_characters("text", (0.5, 0.1), (0.2, 0.1))
    assert "WER by -80 % of it and the CER by -50 % of it: the WER does better than the CER" in said
    assert "does no better" in sentences.words_and_characters("text", (0.5, 0.6), (0.2, 0.1))


def test_first_to_write():
    def log(*blanks):
        return [{"step": 10 * i, "loss": 3 - i * b, "blanks": b} for i, b in enumerate(blanks)] + [
            {"step": 99}
        ]

    said = sentences.first_to_write({"a": log(1.0, 0.5), "b": log(1.0, 0.95)})
    assert "a has under 90 % blanks at step 10; b has under 90 % blanks nowhere yet" in said
    assert said.endswith("a 2.50, b 2.05; b ends lower.")


def test_clean_and_other():
    def of(clean: float, other: float) -> dict[str, float]:
        return {"test-clean": clean, "test-other": other}

    said = sentences.clean_and_other({"a": of(0.2, 0.9), "b": of(0.3, 0.2)})
    assert said == (
        "In the lead: a on test-clean, b on test-other. 1 of 2 recognisers are worse on test-other."
    )
    said = sentences.clean_and_other({"a": of(0.2, 0.3), "b": of(0.3, 0.4)})
    assert said == "a leads on all test sets. 2 of 2 recognisers are worse on test-other."
    one = {"a": {"mine": 0.2}, "b": {"mine": 0.1}}
    assert sentences.clean_and_other(one) == "b leads on mine.", "a world may have one test set"


def test_language_model():
    said = sentences.language_model("text", {"test-clean": change(-20), "test-other": change(-1)})
    assert "test-clean -20.0 (-20.5 to -19.5) points, better, test-other" in said
    assert said.endswith("On test-other it brings less than on test-clean.")
    assert "no less" in sentences.language_model("text", {"test-clean": change(-2), "test-other": change(-9)})
    assert sentences.language_model("text", {"mine": change(-2)}).endswith("points, better.")


@pytest.mark.parametrize(
    ("guess", "points", "words"),
    [
        (None, 2, "No guess was made before; found: worse."),
        ("worse", 2, "As guessed."),
        ("better", 2, "the other way round"),
        ("better", 0, "neither confirmed nor refuted"),
        ("inconclusive", -2, "more than guessed"),
    ],
)
def test_a_guess_stands_beside_what_was_found(guess, points, words):
    said = sentences.beside_guess(guess, change(points))
    assert words in said and f"found: {change(points).verdict}" in said


def test_does_a_verdict_outlive_a_longer_training():
    def change(points: float, half: float = 0.5) -> Comparison:
        interval = ((points - half) / 100, (points + half) / 100)
        return Comparison(points / 100, interval, {0: points / 100}, "phone accuracy", less_is_better=False)

    said = sentences.over_steps({"a": {200: change(-2), 800: change(0), 3200: change(3)}}, "base")
    assert "The verdict turns: a (-2.0 (-2.5 to -1.5) after 200, +3.0" in said and "from base" in said
    assert "It fades: a" in sentences.over_steps({"a": {200: change(2), 800: change(0.1)}}, "base")
    assert "only with more steps: a" in sentences.over_steps({"a": {200: change(0), 800: change(2)}}, "base")
    both = sentences.over_steps({x: {200: change(2), 800: change(1)} for x in "ab"}, "base")
    assert "It is the same: a (" in both and "; b (" in both and "turns" not in both
    assert "is not known" in sentences.over_steps({"a": {200: change(2)}}, "base")
