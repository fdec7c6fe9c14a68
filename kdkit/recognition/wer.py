"""Word and character error rates with intervals, where the errors are, and a verdict when two systems are compared.

Errors (substitutions, deletions, insertions) are counted by jiwer. Both texts are first cleaned by the rule of
:mod:`kdkit.speech.transcripts`: lower case, no accents, no punctuation but apostrophes, single spaces. Spaces count as
characters in the CER.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import jiwer
import numpy as np

from kdkit.common.errors import TextError
from kdkit.common.statistics import Comparison, by_group, ratio_interval
from kdkit.common.wording import between
from kdkit.speech.text import VOCABULARY, Vocabulary
from kdkit.speech.transcripts import clean, outside


@dataclass(frozen=True)
class Score:
    """Error rates of one system on one test set: shares (0.23, not 23), 95 % intervals over utterances."""

    wer: float
    cer: float
    wer_interval: tuple[float, float]
    cer_interval: tuple[float, float]
    words: int  # in the references
    characters: int
    substitutions: int  # of words
    deletions: int
    insertions: int
    utterances: int
    references: tuple[str, ...] = field(repr=False)  # cleaned
    hypotheses: tuple[str, ...] = field(repr=False)
    word_errors: tuple[int, ...] = field(repr=False)  # of each utterance
    word_counts: tuple[int, ...] = field(repr=False)
    character_errors: tuple[int, ...] = field(repr=False)
    character_counts: tuple[int, ...] = field(repr=False)
    vocabulary: Vocabulary = field(default=VOCABULARY, repr=False, compare=False)  # whose letters were kept

    @property
    def errors(self) -> int:
        """Word errors: substitutions + deletions + insertions."""
        return self.substitutions + self.deletions + self.insertions

    def to_dict(self) -> dict:
        """Rates, counts and intervals (None for one utterance) for JSON, without texts."""
        numbers = (
            "wer",
            "cer",
            "words",
            "characters",
            "substitutions",
            "deletions",
            "insertions",
            "utterances",
        )
        intervals = {"wer_interval": self.wer_interval, "cer_interval": self.cer_interval}
        known = {name: None if np.isnan(ends).any() else list(ends) for name, ends in intervals.items()}
        return {name: getattr(self, name) for name in numbers} | known

    def __str__(self) -> str:
        interval = between(self.wer_interval, "share")
        return f"WER {100 * self.wer:.1f} %{interval}, CER {100 * self.cer:.1f} %"


def score(
    references: Sequence[str],
    hypotheses: Sequence[str],
    seed: int = 0,
    vocabulary: Vocabulary = VOCABULARY,
) -> Score:
    """WER and CER of hypotheses against references, in the same order.

    Accented letters in ``vocabulary`` are kept, from others the accents are removed, on both sides. The rate is all
    errors over all reference words, so long utterances weigh more and it can exceed 1. In an utterance without
    reference words all recognised words are insertions; :func:`kdkit.recognition.evaluate.evaluate` leaves those out.

    Raises :class:`TextError` when the lists differ in length, are empty, or no reference has a word.
    """
    if len(references) != len(hypotheses):
        raise TextError(
            f"{len(references)} references but {len(hypotheses)} hypotheses: give pairs, in the same order"
        )
    refs = tuple(clean(text, vocabulary=vocabulary) for text in references)
    hyps = tuple(_heard(text, vocabulary) for text in hypotheses)
    if not any(refs):
        raise TextError(f"none of the {len(refs)} references has a word, so there is no error rate")
    words = np.array([_edits(r.split(), h.split()) for r, h in zip(refs, hyps, strict=True)])
    characters = np.array([_edits(r, h) for r, h in zip(refs, hyps, strict=True)])
    word_counts, character_counts = [len(r.split()) for r in refs], [len(r) for r in refs]
    word_errors, character_errors = words.sum(1), characters.sum(1)
    return Score(
        wer=float(word_errors.sum() / sum(word_counts)),
        cer=float(character_errors.sum() / sum(character_counts)),
        wer_interval=ratio_interval(word_errors, word_counts, seed),
        cer_interval=ratio_interval(character_errors, character_counts, seed),
        words=sum(word_counts),
        characters=sum(character_counts),
        substitutions=int(words[:, 0].sum()),
        deletions=int(words[:, 1].sum()),
        insertions=int(words[:, 2].sum()),
        utterances=len(refs),
        references=refs,
        hypotheses=hyps,
        word_errors=tuple(word_errors.tolist()),
        word_counts=tuple(word_counts),
        character_errors=tuple(character_errors.tolist()),
        character_counts=tuple(character_counts),
        vocabulary=vocabulary,
    )


def _heard(text: str, vocabulary: Vocabulary = VOCABULARY) -> str:
    """A hypothesis for comparison: unchanged if it consists of the vocabulary's letters and apostrophes (a lone
    apostrophe is an error), else cleaned, as some models write capitals and punctuation.
    """
    plain = " ".join(text.lower().split())
    spelled = all(c.isalpha() or c in " '" for c in plain) and not outside(plain, vocabulary)
    return plain if spelled else clean(text, vocabulary=vocabulary)


def _edits(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[int, int, int]:
    """(substitutions, deletions, insertions) that turn the reference into the hypothesis."""
    if not reference:  # rejected by jiwer
        return 0, 0, len(hypothesis)
    count = jiwer.process_words if isinstance(reference, list) else jiwer.process_characters
    text = " ".join if isinstance(reference, list) else "".join
    result = count(text(reference), text(hypothesis))
    return result.substitutions, result.deletions, result.insertions


def compare(
    system: Score, baseline: Score, seed: int = 0, speakers: Sequence[str] | None = None
) -> Comparison:
    """WER of ``system`` minus that of ``baseline``, by a paired bootstrap: both are resampled together, so hard
    utterances cancel.

    With ``speakers`` (one for each utterance) speakers are resampled instead: a wider interval, for claims about new
    speakers. The verdict is about these two models on more speech of this kind, not about other training seeds.

    Raises :class:`TextError` when the two were not scored against the same references.
    """
    if system.references != baseline.references:
        raise TextError(
            f"the two systems were scored on different references ({system.utterances} and "
            f"{baseline.utterances} utterances): a paired comparison needs the same ones in the same order"
        )
    change, counts = np.subtract(system.word_errors, baseline.word_errors), system.word_counts
    if speakers is not None:
        change, counts = by_group(change, speakers), by_group(counts, speakers)
    return Comparison(system.wer - baseline.wer, ratio_interval(change, counts, seed))


def describe_collapse(hypotheses: Sequence[str]) -> str:
    """What is wrong with a recogniser that writes nothing, or always the same, and what to try; "" for any other.

    Many CTC models emit only blanks early in training; this is about those that stay there.
    """
    texts = [_heard(text) for text in hypotheses]
    advice = "train for more steps, check the learning rate and that the labels belong to the audio."
    empty = sum(not text for text in texts)
    if texts and empty == len(texts):
        return f"All {empty} transcripts are empty, only blanks. CTC starts like this; {advice}"
    if texts and empty > len(texts) / 2:
        return f"{empty} of {len(texts)} transcripts are empty; {advice}"
    text, times = Counter(texts).most_common(1)[0] if texts else ("", 0)
    if len(texts) >= 5 and times > 0.8 * len(texts):
        return (
            f"{times} of {len(texts)} transcripts are the same ({text!r}): the audio is not heard; {advice}"
        )
    return ""


EQUAL, SUBSTITUTION, DELETION, INSERTION = "equal", "substitution", "deletion", "insertion"
_KINDS = {"equal": EQUAL, "substitute": SUBSTITUTION, "delete": DELETION, "insert": INSERTION}


def word_edits(reference: str, hypothesis: str) -> list[tuple[str, str, str]]:
    """(kind, reference word, hypothesis word) from left to right, as jiwer aligns them; "" for no word."""
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
    """95 % bootstrap interval of the WER over speakers; ``speakers`` has one for each utterance.

    Speakers are resampled: it answers "what if other people spoke?". The interval over utterances answers "what if
    these people said more?" and is narrower when speakers differ. With fewer than some ten speakers it is rough, with
    one ``(nan, nan)``. Utterances of unknown speakers ("") are left out.
    """
    return ratio_interval(
        by_group(result.word_errors, speakers), by_group(result.word_counts, speakers), seed
    )


@dataclass(frozen=True)
class SpeakerErrors:
    """One speaker's WER, with its 95 % interval over the speaker's utterances."""

    speaker: str
    utterances: int
    words: int
    wer: float
    interval: tuple[float, float]


def by_speaker(result: Score, speakers: Sequence[str], seed: int = 0) -> list[SpeakerErrors]:
    """Every known speaker's WER, the worst first. Speakers without a reference word are left out."""
    by_group(result.word_counts, speakers)  # raises for lists of different length
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
    """Counts of one word: said, substituted, deleted, and written where it was not said."""

    word: str
    said: int
    substituted: int
    deleted: int
    inserted: int  # or substituted for another word
    taken_for: tuple[tuple[str, int], ...]  # (word written instead, times), most frequent first


def by_word(result: Score) -> list[WordErrors]:
    """Every word of references and hypotheses, those with most errors first."""
    said, substituted, deleted, inserted = Counter(), Counter(), Counter(), Counter()
    instead = defaultdict(Counter)
    for reference, hypothesis in zip(result.references, result.hypotheses, strict=True):
        for kind, wanted, found in word_edits(reference, hypothesis):
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
