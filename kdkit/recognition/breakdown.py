"""Where the errors of a :class:`kdkit.recognition.score.Score` are: which speakers, which words, which word for
which.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from kdkit.common.statistics import by_group, ratio_interval
from kdkit.recognition.score import Score

EQUAL, SUBSTITUTION, DELETION, INSERTION = "equal", "substitution", "deletion", "insertion"
_KINDS = {"equal": EQUAL, "substitute": SUBSTITUTION, "delete": DELETION, "insert": INSERTION}


def align(reference: str, hypothesis: str) -> list[tuple[str, str, str]]:
    """(kind, reference word, hypothesis word) from left to right, as jiwer aligns them; "" where there is none."""
    wanted, found = reference.split(), hypothesis.split()
    if not wanted:
        return [(INSERTION, "", word) for word in found]
    steps = []
    for chunk in jiwer.process_words(" ".join(wanted), " ".join(found)).alignments[0]:
        kind = _KINDS[chunk.type]
        left = wanted[chunk.ref_start_idx : chunk.ref_end_idx]
        right = found[chunk.hyp_start_idx : chunk.hyp_end_idx]
        for i in range(max(len(left), len(right))):
            steps.append((kind, left[i] if left else "", right[i] if right else ""))
    return steps


def speaker_interval(result: Score, speakers: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the WER over speakers, ``speakers`` naming that of each utterance.

    Whole voices are drawn again. It answers "what if other people spoke?"; the interval over utterances only answers
    "what if these people said more?" and is narrower when some voices are harder than others. With fewer than
    some ten speakers it is a rough guess; ``(nan, nan)`` for one. Utterances of unknown speakers ("") are left out.
    """
    return ratio_interval(
        by_group(result.word_errors, speakers), by_group(result.word_counts, speakers), seed
    )


@dataclass(frozen=True)
class SpeakerErrors:
    """One speaker's share of a score; ``interval`` over the speaker's utterances."""

    speaker: str
    utterances: int
    words: int
    wer: float
    interval: tuple[float, float]


def by_speaker(result: Score, speakers: Sequence[str], seed: int = 0) -> list[SpeakerErrors]:
    """Every known speaker's WER, the worst first. Speakers without a reference word are left out."""
    by_group(result.word_counts, speakers)  # refuses lists that do not fit
    found = []
    for speaker in dict.fromkeys(filter(None, speakers)):
        mine = np.array([other == speaker for other in speakers])
        errors, words = np.array(result.word_errors)[mine], np.array(result.word_counts)[mine]
        if words.sum():
            interval = ratio_interval(errors, words, seed)
            wer = float(errors.sum() / words.sum())
            found.append(SpeakerErrors(speaker, int(mine.sum()), int(words.sum()), wer, interval))
    return sorted(found, key=lambda part: (-part.wer, part.speaker))


@dataclass(frozen=True)
class WordErrors:
    """What became of one word: how often it was said, substituted, deleted, and written where it was not said."""

    word: str
    said: int
    substituted: int
    deleted: int
    inserted: int  # alone or in place of another word
    taken_for: tuple[tuple[str, int], ...]  # what was written instead, most often first

    @property
    def missed(self) -> float:
        """Share of the times it was said that it was not written; nan if it never was said."""
        return (self.substituted + self.deleted) / self.said if self.said else float("nan")


def by_word(result: Score) -> list[WordErrors]:
    """Every word of references and hypotheses, those with most errors first."""
    said, substituted, deleted, inserted = Counter(), Counter(), Counter(), Counter()
    instead = defaultdict(Counter)
    for reference, hypothesis in zip(result.references, result.hypotheses, strict=True):
        for kind, wanted, found in align(reference, hypothesis):
            if wanted:
                said[wanted] += 1
            if kind == SUBSTITUTION:
                substituted[wanted] += 1
                instead[wanted][found] += 1
            if kind == DELETION:
                deleted[wanted] += 1
            if found and kind != EQUAL:
                inserted[found] += 1
    words = [
        WordErrors(w, said[w], substituted[w], deleted[w], inserted[w], tuple(instead[w].most_common()))
        for w in said.keys() | inserted.keys()
    ]
    return sorted(words, key=lambda w: (-(w.substituted + w.deleted + w.inserted), w.word))


def confusions(result: Score) -> list[tuple[str, str, int]]:
    """(said, written, times) of every substitution, the most frequent first."""
    pairs = [(entry.word, found, times) for entry in by_word(result) for found, times in entry.taken_for]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))
