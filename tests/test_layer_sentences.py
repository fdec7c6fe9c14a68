"""Sentences after a guess of notebook 01: each is said both ways, by findings that differ."""

from dataclasses import replace

import numpy as np
import pytest

from kdkit.lessons import layer_sentences as say
from kdkit.probing import LayerScore, PhoneProbe
from kdkit.probing.clusters import Usage
from kdkit.speech.phone_classes import phone_class


def scores(*accuracies, half=0.01):
    return tuple(LayerScore(f"H{i}", a, a - half, a + half) for i, a in enumerate(accuracies))


def probe(*accuracies, cnn=0.41, fbank=0.4):
    front_end, line = (
        LayerScore(name, a, a - 0.01, a + 0.01) for name, a in (("CNN", cnn), ("Fbank", fbank))
    )
    return PhoneProbe(scores(*accuracies), front_end, line, ("a",), np.eye(1), (0.0, 0.1), 10, 10, 2)


@pytest.mark.parametrize(
    ("ids", "phones", "words"),
    [
        ([1, 1, 1, 2, 2, 2], "aaabbb", ["100.0 % have", "border 0.0 %", "more often", "several frames"]),
        ([1, 2, 3, 4, 4, 5], "aaabbb", ["25.0 %", "more often", "last one frame"]),
        ([1, 2, 3, 3, 5, 6], "aaabbb", ["0.0 % have", "do not change at borders"]),
    ],
)
def test_do_ids_last_as_long_as_phones(ids, phones, words):
    said = say.steadiness(ids, phones).replace("\N{NO-BREAK SPACE}", " ")
    assert all(word in said for word in words), said


def test_the_shape_of_the_curve_is_said_as_it_is():
    expected = say.shape(probe(0.3, 0.5, 0.6, 0.5))
    assert "+1.0 points" in expected and "as close as expected" in expected
    assert "rises by 20.0 points" in expected and "10.0 points below H2" in expected
    refuted = say.shape(probe(0.5, 0.4, 0.5, 0.6, cnn=0.2))
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
    said = say.fades(scores(0.2, 0.3, 0.4), scores(*other))
    assert words in said and "Phones: highest in H2" in said


def test_mistakes_between_sounds_that_are_alike_are_told_from_others():
    phones = ["p", "b", "a", "i"]
    counts = np.full((4, 4), 5) + 45 * np.eye(4, dtype=int)
    alike = counts.copy()
    alike[0, 1] = alike[2, 3] = 40
    said = say.likely_mistakes(alike, phones)
    assert "sounds that are alike" in said and "[b] for [p]" in said
    assert "not between alike sounds" in say.likely_mistakes(counts, phones)
    assert say.likely_mistakes(np.eye(4), phones) == "There is no mistake."


def test_the_ends_of_the_temperature():
    usage = [Usage(0.03, 1.2, 50, 0.9), Usage(1.0, 95, 98, 0.02)]
    said = say.sharpness(usage, 100)
    assert "nearly certain" in said and "says nothing" in said
    said = say.sharpness([replace(usage[0], choices=9.0), replace(usage[1], choices=40)], 100)
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
    assert say.chance(["a", "b", "a", "c"]) == 0.5
