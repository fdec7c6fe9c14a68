"""Checks of notebook 04: greedy CTC, and the frames that a text needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np

from kdkit.lessons.exercises.checking import checks, compare
from kdkit.recognition.decode import collapse
from kdkit.speech.text import VOCABULARY
from kdkit.speech.text import frames_needed as of_ids

WORDS = ["a", "see", "all", "will", "letter", "balloon", "red", "needle", "small", "pen", "the", "o'clock"]


def random_words(rng: np.random.Generator, most: int = 6) -> list[str]:
    """One to ``most`` words, many of them with double letters."""
    return rng.choice(WORDS, int(rng.integers(1, most + 1))).tolist()


# --- greedy decoding ---------------------------------------------------------------------------------------------


def write_out(ids: Sequence[int]) -> str:
    """The package's: best symbol of each frame -> text."""
    return VOCABULARY.decode(collapse(list(ids)))


def _path(rng: np.random.Generator, text: str) -> list[int]:
    """A random path of the CTC graph that spells ``text``: letters held for a while, blanks here and there."""
    path = [VOCABULARY.blank] * int(rng.integers(0, 3))
    for symbol in VOCABULARY.encode(text):
        blanks = int(rng.integers(0, 3))
        if path and path[-1] == symbol:
            blanks = max(1, blanks)
        path += [VOCABULARY.blank] * blanks + [symbol] * int(rng.integers(1, 4))
    return path + [VOCABULARY.blank] * int(rng.integers(0, 3))


def _spelled(symbols: Sequence[int], spaces: bool = True, blanks: bool = False) -> str:
    text = "".join(VOCABULARY[s] for s in symbols if blanks or s != VOCABULARY.blank)
    return " ".join(text.replace("|", " ").split()) if spaces else text


@checks("write_out", write_out)
def check_write_out(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(ids)``, the best symbol of each frame -> text: repeats merged, then blanks dropped, | to spaces."""

    def by_groups(ids):
        return _spelled([symbol for symbol, _ in groupby(ids)])

    def blanks_first(ids):
        return _spelled([symbol for symbol, _ in groupby(s for s in ids if s != VOCABULARY.blank)])

    def sequence(ids, skip=0):
        return [symbol for i, symbol in enumerate(ids) if i < skip or symbol != ids[i - 1]]

    double, ending = (
        _path(rng, " ".join([*random_words(rng), "balloon", *random_words(rng)])) for _ in range(2)
    )
    border = [VOCABULARY.boundary]  # a word boundary at the ends, two in a row with a blank between
    odd = [*border, *double, *border, VOCABULARY.blank, *border]
    # the first symbol equals the last one: where ids[-1] is looked at for the first, it is lost
    ring = [VOCABULARY.encode("a")[0], *ending, VOCABULARY.blank, VOCABULARY.encode("a")[0]]
    twice = [*ending, *border, VOCABULARY.blank, *border, *double]  # two boundaries between two words
    cases = [
        (double,),
        (odd,),
        (ring,),
        (twice,),
        *((_path(rng, " ".join(random_words(rng))),) for _ in range(5)),
    ]
    mistakes = [
        (
            "Blanks are dropped before repeats are merged, so double letters are lost: merge first.",
            blanks_first,
        ),
        (
            "Repeats are not merged: a letter that lasts three frames is one letter.",
            lambda ids: _spelled(ids),
        ),
        (
            "The blanks are still in the text: leave out symbol 0.",
            lambda ids: _spelled([s for s, _ in groupby(ids)], blanks=True),
        ),
        (
            "The word boundary | has to become a space.",
            lambda ids: _spelled([s for s, _ in groupby(ids)], spaces=False),
        ),
        (
            "Spaces are left at the ends, or doubled: boundaries there say nothing (text.split() and join).",
            lambda ids: _spelled([s for s, _ in groupby(ids)], spaces=False).replace("|", " "),
        ),
        (
            "Off by one at the start: for the first frame, ids[i - 1] is ids[-1], the last one.",
            lambda ids: _spelled(sequence(ids)),
        ),
        (
            "Off by one: the first symbol is left out.",
            lambda ids: _spelled([b for a, b in pairwise(ids) if a != b]),
        ),
        (
            "Off by one: the last symbol is left out.",
            lambda ids: _spelled([a for a, b in pairwise(ids) if a != b]),
        ),
        (
            "Every letter is kept once only: merge what is next to each other, not what occurs anywhere.",
            lambda ids: _spelled(list(dict.fromkeys(ids))),
        ),
    ]
    compare(call, cases, by_groups, mistakes, "The text is one string: join the letters.")
    yield "random paths are read as the texts they spell, double letters and boundaries included"
    compare(call, [([],), ([VOCABULARY.blank] * 5,)], by_groups)
    yield "no frames, or nothing but blanks, are an empty text"


# --- frames that a text needs ------------------------------------------------------------------------------------


def frames_needed(text: str) -> int:
    """The package's: frames that a CTC alignment of ``text`` takes at least."""
    return of_ids(VOCABULARY.encode(text))


def _shortest_path(text: str) -> int:
    """Builds the shortest path, and asserts that it is decoded to the text."""
    path: list[int] = []
    for symbol in VOCABULARY.encode(text):
        path += [VOCABULARY.blank, symbol] if path and path[-1] == symbol else [symbol]
    assert write_out(path) == text
    return len(path)


@checks("frames_needed", frames_needed)
def check_frames_needed(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(text)`` -> the least number of frames in which CTC can write it, spaces included."""

    cases = [(" ".join(random_words(rng)),) for _ in range(8)]
    cases += [
        (" ".join([*random_words(rng), "balloon"]),),
        (" ".join(["all", *random_words(rng), "letter"]),),
    ]

    def doubles(text):
        return sum(a == b for a, b in pairwise(text))

    def anywhere(text):
        return len(text) + len(text) - len(set(text))

    mistakes = [
        (
            "Double letters are forgotten: between two equal letters in a row there has to be a blank.",
            lambda text: len(text),
        ),
        (
            "This leaves room for a blank around every letter; only two *equal* neighbours need one between them.",
            lambda text: 2 * len(text) + 1,
        ),
        (
            "This leaves room for a blank between all letters; only two *equal* neighbours need one.",
            lambda text: 2 * len(text) - 1,
        ),
        ("Off by one: one too many.", lambda text: len(text) + doubles(text) + 1),
        ("Off by one: one too few.", lambda text: len(text) + doubles(text) - 1),
        (
            "Spaces are not counted: the boundary between words is a symbol that takes a frame.",
            lambda text: len(text) + doubles(text) - text.count(" "),
        ),
        (
            "Each double letter counts twice too often: the letter is counted already, one blank is added.",
            lambda text: len(text) + 2 * doubles(text),
        ),
        (
            "Letters that come again *anywhere* get a blank; only neighbours need one.",
            anywhere,
        ),
        (
            "Double letters are merged away; they need both letters and a blank between them.",
            lambda text: len(text) - doubles(text),
        ),
    ]
    compare(call, cases, _shortest_path, mistakes)
    yield "it is the length of the shortest path that is read as the text"
