"""Greedy CTC decoding: cases worked by hand, and the round trip over alignments of random texts."""

from itertools import groupby

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.decode import blank_fraction, collapse, greedy
from kdkit.errors import ConfigError
from kdkit.text import BLANK, VOCABULARY, encode

WORDS = st.lists(st.text("abcxyz'", min_size=1, max_size=6), min_size=1, max_size=4)


def logits_of(symbols: str) -> torch.Tensor:
    """One frame a character, "-" the blank, "|" the word boundary: (1, T, V)."""
    ids = torch.tensor([VOCABULARY.index(symbol) for symbol in symbols])
    return torch.nn.functional.one_hot(ids, len(VOCABULARY)).float()[None]


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ("hheell-llo", "hello"),
        ("helllo", "helo"),  # without a blank a double letter is one letter
        ("--a-|-b--", "a b"),
        ("a|--|b", "a b"),  # an empty word is no word
        ("|ab|", "ab"),
        ("-----", ""),
        ("i't", "i't"),
    ],
)
def test_cases_worked_by_hand(frames, text):
    assert greedy(logits_of(frames), torch.tensor([len(frames)])) == [text]


@settings(deadline=None)
@given(WORDS, st.data())
def test_every_alignment_of_a_text_decodes_to_it(words, data):
    path = []
    for symbol in encode(" ".join(words)):
        blanks = data.draw(st.integers(1 if path and path[-1] == symbol else 0, 2))
        path += [BLANK] * blanks + [symbol] * data.draw(st.integers(1, 3))
    logits = torch.full((1, len(path), len(VOCABULARY)), -1.0)
    logits[0, range(len(path)), path] = 1.0
    assert greedy(logits, torch.tensor([len(path)])) == [" ".join(words)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), max_size=30))
def test_collapse_is_groupby_without_blanks(ids):
    assert collapse(ids) == [symbol for symbol, _ in groupby(ids) if symbol != BLANK]


def test_padding_is_not_read():
    logits = torch.cat([logits_of("ab--x"), logits_of("abcde")])
    assert greedy(logits, torch.tensor([3, 5])) == ["ab", "abcde"]
    assert blank_fraction(logits, torch.tensor([3, 5])) == pytest.approx(1 / 8)


def test_log_probabilities_decode_like_logits():
    logits = torch.randn(3, 20, len(VOCABULARY), generator=torch.Generator().manual_seed(0))
    frames = torch.tensor([20, 7, 1])
    assert greedy(logits, frames) == greedy(logits.log_softmax(-1), frames)


def test_wrong_shapes_are_explained():
    with pytest.raises(ConfigError, match="one logit for each symbol"):
        greedy(torch.zeros(1, 5, 7), torch.tensor([5]))
    with pytest.raises(ConfigError, match="do not fit"):
        greedy(logits_of("abc"), torch.tensor([4]))
    with pytest.raises(ConfigError, match="do not fit"):
        greedy(logits_of("abc"), torch.tensor([3, 3]))
