"""Checks of notebook 04: the edit distance, the word error rate, an interval to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher

import jiwer
import numpy as np

from kdkit.common.statistics import VERDICTS
from kdkit.lessons.exercises.checking import Wrong, check_answer, checks, compare
from kdkit.lessons.exercises.ctc import WORDS, random_words
from kdkit.recognition.wer import score

# --- errors ------------------------------------------------------------------------------------------------------


def edits(reference: Sequence, hypothesis: Sequence) -> int:
    """The fewest substitutions, deletions and insertions, by jiwer; items are compared as words."""
    names: dict = {}
    one, two = (
        " ".join(f"w{names.setdefault(item, len(names))}" for item in x) for x in (reference, hypothesis)
    )
    if not one:
        return len(hypothesis)
    found = jiwer.process_words(one, two)
    return found.substitutions + found.deletions + found.insertions


def _distance(a: Sequence, b: Sequence, substitution: int = 1, insertion: int = 1, deletion: int = 1) -> int:
    """The edit distance with other costs."""
    row = [j * insertion for j in range(len(b) + 1)]
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i * deletion
        for j, y in enumerate(b, 1):
            best = min(row[j] + deletion, row[j - 1] + insertion, diagonal + substitution * (x != y))
            diagonal, row[j] = row[j], best
    return row[-1]


def _by_difflib(a: Sequence, b: Sequence) -> int:
    """Edits in the alignment of :mod:`difflib`, which begins at the longest common block."""
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in blocks if tag != "equal")


def _with_swaps(a: Sequence, b: Sequence) -> int:
    """Damerau's distance, in which a swap of neighbours is one edit."""
    table = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            costs = [table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a[i - 1] != b[j - 1])]
            if i > 1 and j > 1 and (a[i - 2], a[i - 1]) == (b[j - 1], b[j - 2]):
                costs.append(table[i - 2, j - 2] + 1)
            table[i, j] = min(costs)
    return table[len(a), len(b)]


def _changed(rng: np.random.Generator, words: list[str]) -> list[str]:
    """Some words deleted, replaced and inserted; never empty."""
    made = []
    for word in words:
        draw = rng.random()
        if draw < 0.15:
            continue
        made.append(str(rng.choice(WORDS)) if draw < 0.35 else word)
        if draw > 0.8:
            made.append(str(rng.choice(WORDS)))
    return made or ["a"]


def _of_few_words(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Reference and hypothesis of three different words, where greedy alignments go wrong; short, because a plain
    recursion is a right answer, too."""
    few = rng.choice(WORDS, 3, replace=False)
    return tuple(rng.choice(few, length).tolist() for length in rng.integers(4, 8, 2))


@checks("edits", edits)
def check_edits(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(reference, hypothesis)`` -> least number of substitutions, deletions and insertions."""

    cases = [(words, _changed(rng, words)) for words in (random_words(rng, 9) for _ in range(10))]
    cases += [_of_few_words(rng) for _ in range(20)]
    cases += [(["the", "red", "pen"], ["red", "pen"]), (["red", "pen"], ["the", "red", "pen"])]
    cases += [(["see", "a", "red", "pen"], ["see", "a", "small", "pen"]), (["red", "pen"], ["pen", "red"])]

    def in_place(a, b):
        return sum(x != y for x, y in zip(a, b)) + abs(len(a) - len(b))

    def common(a, b):  # the longest common subsequence
        return (len(a) + len(b) - _distance(a, b, substitution=2)) // 2

    mistakes = [
        (
            "A substitution costs 2 here (one deletion and one insertion); it costs 1.",
            lambda a, b: _distance(a, b, substitution=2),
        ),
        (
            "Words are compared place by place, so one missing word makes all that follow wrong: the table has to try "
            "deletions and insertions, too.",
            in_place,
        ),
        (
            "Words are compared place by place, and what hangs over is not counted.",
            lambda a, b: sum(x != y for x, y in zip(a, b)),
        ),
        ("This is only the difference in length.", lambda a, b: abs(len(a) - len(b))),
        ("Insertions cost nothing here; they cost 1.", lambda a, b: _distance(a, b, insertion=0)),
        ("Deletions cost nothing here; they cost 1.", lambda a, b: _distance(a, b, deletion=0)),
        ("Substitutions cost nothing here; they cost 1.", lambda a, b: _distance(a, b, substitution=0)),
        (
            "Off by one: the last word of the hypothesis is left out (row[-2]?).",
            lambda a, b: _distance(a, b[:-1]),
        ),
        ("Off by one: the last word of the reference is left out.", lambda a, b: _distance(a[:-1], b)),
        ("Off by one: there is one error too many.", lambda a, b: _distance(a, b) + 1),
        ("This is what both have in common; asked for are the errors.", common),
        (
            "This compares sets of words; order and repeats count, too.",
            lambda a, b: len(set(a) ^ set(b)),
        ),
        (
            "The alignment is greedy, as difflib's is: the longest common block need not be part of the cheapest one.",
            _by_difflib,
        ),
        (
            "Neighbours that have changed places count as one edit (that is Damerau's distance); here they are two.",
            _with_swaps,
        ),
    ]
    compare(call, cases, edits, mistakes)
    yield "it agrees with jiwer on random sentences"
    one = cases[0][0]
    for pair, value, words in (
        ((one, list(one)), 0, "for two equal sentences"),
        (([], one), len(one), "for an empty reference"),
        ((one, []), len(one), "for an empty hypothesis"),
        (([], []), 0, "for two empty sentences"),
    ):
        if call(*pair) != value:
            raise Wrong(f"It gives {call(*pair)} {words} of {len(one)} words; {value} is right.")
    yield "it is 0 for equal sentences, and counts every word where one of the two is empty"
    compare(call, [("kitten", "sitting"), ("balloon", "baloon")], lambda a, b: _distance(a, b))
    yield "it counts letters of a string just as well"


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """The package's: all word errors over all reference words."""
    return score(references, hypotheses).wer


@checks("word_error_rate", word_error_rate)
def check_word_error_rate(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(references, hypotheses)``, lists of texts -> all errors over all reference words, a share."""

    cases = []
    for _ in range(6):
        texts = [random_words(rng, 9) for _ in range(int(rng.integers(3, 8)))]
        changed = [_changed(rng, words) for words in texts]
        changed[0] = [*texts[0], "a"]  # one of them only has an insertion: the two lengths differ
        cases.append(([" ".join(words) for words in texts], [" ".join(words) for words in changed]))
    cases.append((["a red pen"], ["see all the small red balloon pen here now"]))  # more errors than words
    cases.append((["a red", "pen"], ["a", "red pen"]))  # a word that is right, but in another utterance
    pairs = [_of_few_words(rng) for _ in range(12)]
    cases.append(tuple([" ".join(pair[side]) for pair in pairs] for side in (0, 1)))

    def counted(references, hypotheses, split=str.split):
        pairs = [(split(r), split(h)) for r, h in zip(references, hypotheses)]
        return [(_distance(r, h), len(r), len(h)) for r, h in pairs]

    def over(place):
        def rate(references, hypotheses):
            rows = counted(references, hypotheses)
            return sum(row[0] for row in rows) / max(1, sum(row[place] for row in rows))

        return rate

    def longer(references, hypotheses):
        rows = counted(references, hypotheses)
        return sum(row[0] for row in rows) / sum(max(row[1:]) for row in rows)

    def mean_rate(references, hypotheses):
        return float(np.mean([errors / words for errors, words, _ in counted(references, hypotheses)]))

    def joined(references, hypotheses):
        return _distance(" ".join(references).split(), " ".join(hypotheses).split()) / len(
            " ".join(references).split()
        )

    def letters(references, hypotheses):
        rows = counted(references, hypotheses, list)
        return sum(row[0] for row in rows) / sum(row[1] for row in rows)

    def by_jiwer(references, hypotheses):
        return float(jiwer.wer(references, hypotheses))

    mistakes = [
        ("The errors are divided by the words of the hypothesis; divide by those of the reference.", over(2)),
        ("The errors are divided by the longer of the two; divide by the words of the reference.", longer),
        (
            "This is the mean of the rates of the utterances: there a one-word utterance counts as much as a long one. "
            "Sum all errors, then divide by all words.",
            mean_rate,
        ),
        (
            "The texts are joined before they are compared, so that a word may match in another utterance.",
            joined,
        ),
        ("These are letters: split the texts into words first (that is the CER).", letters),
        ("That is per cent; give the share.", lambda r, h: 100 * by_jiwer(r, h)),
        (
            "This is the number of errors: divide it by the number of reference words.",
            lambda r, h: float(sum(row[0] for row in counted(r, h))),
        ),
        (
            "The errors are divided by the number of utterances; divide by that of reference words.",
            lambda r, h: sum(row[0] for row in counted(r, h)) / len(r),
        ),
        (
            "It is cut off at 1: with enough insertions there are more errors than words.",
            lambda r, h: min(1.0, by_jiwer(r, h)),
        ),
        (
            "This is the share of words that are right; asked for are the errors.",
            lambda r, h: 1 - by_jiwer(r, h),
        ),
        (
            "The letters of the texts are counted in the denominator: len(text.split()) counts words.",
            lambda r, h: sum(row[0] for row in counted(r, h)) / sum(map(len, r)),
        ),
        (
            "This is the share of utterances with an error; asked for is that of words.",
            lambda r, h: float(np.mean([a != b for a, b in zip(r, h)])),
        ),
    ]
    compare(call, cases, by_jiwer, mistakes, "All utterances together have one rate.")
    yield "it agrees with jiwer on random lists of texts, above 1 as well"
    compare(call, [(cases[0][0], list(cases[0][0]))], by_jiwer)
    yield "it is 0 where nothing is wrong"


# --- an interval to read -----------------------------------------------------------------------------------------


def check_verdict(answer: str | None, interval: tuple[float, float]) -> None:
    """Does it read a 95 % ``interval`` of the change in WER rightly? One of :data:`VERDICTS`, about the new system."""
    low, high = interval
    own = "better" if high < 0 else "worse" if low > 0 else "inconclusive"
    where = {
        "better": "lies below 0 as a whole: fewer errors, whichever utterances are drawn",
        "worse": "lies above 0 as a whole: more errors, whichever utterances are drawn",
        "inconclusive": "holds 0: it may be better or worse, this much speech cannot tell",
    }

    def find(given: object) -> str:
        word = str(given).strip().lower()
        if word not in VERDICTS:
            raise Wrong(f"{given!r} is none of the words: {', '.join(map(repr, VERDICTS))}.")
        if word == own:
            return f"The interval {where[own]}."
        if own == "inconclusive":
            raise Wrong("The middle of the interval is not the verdict: is 0 inside, between its two ends?")
        if word == "inconclusive":
            raise Wrong("0 is not inside the interval: then the data do say something.")
        raise Wrong("Mind the sign: this is the change of an *error* rate, so below 0 is good.")

    check_answer("my_verdict", answer, find)
