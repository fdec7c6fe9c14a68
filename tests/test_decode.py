"""Greedy CTC decoding: cases worked by hand, and the round trip over alignments of random texts."""

from itertools import groupby

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.common.errors import ConfigError
from kdkit.recognition.decode import (
    LONGEST,
    PAUSE,
    collapse,
    decode_stretches,
    greedy,
    stretch,
    text_of,
)
from kdkit.speech.text import VOCABULARY

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
    for symbol in VOCABULARY.encode(" ".join(words)):
        blanks = data.draw(st.integers(1 if path and path[-1] == symbol else 0, 2))
        path += [VOCABULARY.blank] * blanks + [symbol] * data.draw(st.integers(1, 3))
    logits = torch.full((1, len(path), len(VOCABULARY)), -1.0)
    logits[0, range(len(path)), path] = 1.0
    assert greedy(logits, torch.tensor([len(path)])) == [" ".join(words)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), max_size=30))
def test_collapse_is_groupby_without_blanks(ids):
    assert collapse(ids) == [symbol for symbol, _ in groupby(ids) if symbol != VOCABULARY.blank]


def test_padding_is_not_read():
    logits = torch.cat([logits_of("ab--x"), logits_of("abcde")])
    assert greedy(logits, torch.tensor([3, 5])) == ["ab", "abcde"]


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


# ---------------------------------------------------------------------------------------------------------- stretches


def heard(symbols: str) -> torch.Tensor:
    return logits_of(symbols)[0] if symbols else torch.zeros(0, len(VOCABULARY))


def test_stretches_end_in_the_middle_of_a_pause():
    pause = "-" * 31
    assert stretch(heard("ab")) is None
    assert stretch(heard(f"ab{pause}")) is None  # it may go on
    assert stretch(heard(f"ab{pause}c")) == 2 + 31 - 15
    assert stretch(heard(f"{pause}ab")) is None  # nothing was said before it
    assert stretch(heard("ab" + "-" * PAUSE + "c")) == 2 + PAUSE - PAUSE // 2
    assert stretch(heard("ab" + "-" * (PAUSE - 1) + "c")) is None
    endless = heard("a-b-|-" * (LONGEST // 6 + 1))
    assert stretch(endless[: LONGEST - 1]) is None
    cut = stretch(endless)
    assert cut == stretch(endless[:LONGEST]) and endless[cut].argmax() == VOCABULARY.index("|")
    assert stretch(heard("-" * (LONGEST + 40))) == LONGEST
    assert stretch(heard("a-b-" * LONGEST)) == LONGEST


def test_a_pause_ends_a_word_and_a_short_silence_does_not():
    short, long = "-" * (PAUSE - 1), "-" * PAUSE
    assert text_of(greedy, heard(f"gar{short}age")) == "garage"  # ended a word when 15 blanks were a pause
    assert text_of(greedy, heard(f"one{long}two|{long}{long}|to-o")) == "one two too"
    assert text_of(greedy, heard("")) == text_of(greedy, heard(long * 3)) == ""


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("ab|"), st.integers(1, 60)), max_size=60), st.integers(1, 700))
def test_stretches_are_the_whole_however_much_of_it_is_there(pieces, block):
    path = "".join(symbol + "-" * blanks for symbol, blanks in pieces)
    frames = heard(path)
    whole = [len(part) for part, _ in decode_stretches(greedy, frames)]
    assert sum(whole) == len(frames)
    found, start = [], 0
    for end in range(block, len(frames) + block, block):  # as a file is heard, window by window
        while (cut := stretch(frames[start:end])) is not None:
            found.append(cut)
            start += cut
    rest = len(frames) - start
    assert found + [rest] * bool(rest) == whole
