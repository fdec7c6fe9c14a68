"""Forced alignment: when the words and phones of a known text are said.

1. A recogniser emits log-probabilities of letters every 20 ms.
2. The most probable CTC path that spells the text says where its words begin and end (:func:`timed_words`).
3. For speech without phone times, such as LibriSpeech, ``kdkit align`` estimates them: the phones of each word are
   eSpeak NG's, with eSpeak's durations, stretched to the word (:func:`add_phones`). Here the recogniser may also
   be torchaudio's alignment bundle MMS_FA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from torch import Tensor

from kdkit.common.downloads import download
from kdkit.common.errors import KdkitError
from kdkit.common.files import cache_folder
from kdkit.common.progress import tqdm
from kdkit.recognition.foreign import recogniser_of_bundle
from kdkit.recognition.network import Network, log_probs_of, vocabulary_of
from kdkit.recognition.viterbi import Span, label_spans
from kdkit.speech.audio import read_audio
from kdkit.speech.corpora.synthetic import espeak
from kdkit.speech.corpora.synthetic.phones import SILENCE, normalise
from kdkit.speech.frames import HOP, RECEPTIVE_FIELD, SAMPLE_RATE
from kdkit.speech.manifest import Utterance
from kdkit.speech.text import Vocabulary
from kdkit.speech.transcripts import clean
from kdkit.teachers.bundles import BUNDLES
from kdkit.teachers.safe_pickle import read_pickle

_MARGIN = 0.04  # seconds added before and after a word: CTC emits letters inside of their sounds


def frame_time(frame: int) -> float:
    """Seconds from the start of the recording to the start of the 20 ms that frame number ``frame`` stands for.

    Its receptive field is 25 ms long, so the 20 ms around the middle of it begin 2.5 ms later.
    """
    return (HOP * frame + (RECEPTIVE_FIELD - HOP) / 2) / SAMPLE_RATE


def timed_words(
    log_probs: Tensor, words: Sequence[str], vocabulary: Vocabulary, start: int = 0
) -> list[tuple[float, float, float]]:
    """(start, end, score) of each word in log-probabilities (T, V).

    Start of its first letter and end of its last, in seconds; ``start`` frames came before. The score is the mean
    probability of its letters. Raises as :func:`word_spans`.
    """
    return [
        (
            frame_time(start + spans[0].start),
            frame_time(start + spans[-1].end),
            sum(span.score for span in spans) / len(spans),
        )
        for spans in word_spans(log_probs, words, vocabulary)
    ]


def word_spans(log_probs: Tensor, words: Sequence[str], vocabulary: Vocabulary) -> list[list[Span]]:
    """The spans of each word's letters on the best path through log-probabilities (T, V) that spells all words.

    A span has ``start`` and ``end`` (frames) and ``score``, the mean probability of its letter. Raises
    :class:`TextError` for characters outside the vocabulary, and for words that do not fit into so many frames.
    """
    spelled = [vocabulary.encode(word) for word in words]
    between = [] if vocabulary.boundary is None else [vocabulary.boundary]
    numbers = [n for i, word in enumerate(spelled) for n in [*(between if i else ()), *word]]
    spans = iter(label_spans(log_probs, numbers, vocabulary.blank))
    found = []
    for i, word in enumerate(spelled):
        if i and between:
            next(spans)
        found.append([next(spans) for _ in word])
    return found


# --------------------------------------------------------------------------------------------------------- phone times


@dataclass(frozen=True)
class Aligner:
    """A recogniser of letters: ``log_probs(wave (S,)) -> (T, V)``, on the CPU; ``name`` is printed with the results."""

    name: str
    log_probs: Callable[[Tensor], Tensor]
    vocabulary: Vocabulary


def bundle_aligner(device: torch.device | str = "cpu") -> Aligner:
    """torchaudio's forced-alignment bundle (1.2 GB, downloaded on first use; its weights are CC-BY-NC 4.0)."""
    name = "MMS_FA"
    path = cache_folder() / "aligners" / name / "model.pt"
    download(BUNDLES[name].url, path)
    network = recogniser_of_bundle(BUNDLES[name], read_pickle(path), path).to(device)
    return recogniser_aligner(network, f"torchaudio's {name}")


def recogniser_aligner(network: Network, name: str = "kdkit's recogniser") -> Aligner:
    """An aligner of a recogniser's network, in eval mode."""
    return Aligner(name, partial(log_probs_of, network), vocabulary_of(network))


def word_times(log_probs: Tensor, words: Sequence[str], aligner: Aligner) -> list[tuple[float, float]]:
    """Start and end of each word in seconds: of its letters, widened by up to 40 ms on both sides.

    Two words closer than 80 ms share the gap. Raises :class:`KdkitError` when the words cannot be aligned.
    """
    unknown = aligner.vocabulary.outside(" ".join(words))
    if unknown or not words:
        raise KdkitError(f"letters that {aligner.name} does not know: {unknown}" if unknown else "no words")
    peaks = [(start, end) for start, end, _ in timed_words(log_probs, words, aligner.vocabulary)]
    times, end = [], frame_time(len(log_probs))
    for i, (start, stop) in enumerate(peaks):
        before = start - peaks[i - 1][1] if i else 2 * start
        after = peaks[i + 1][0] - stop if i + 1 < len(peaks) else 2 * (end - stop)
        times.append((start - min(_MARGIN, before / 2), stop + min(_MARGIN, after / 2)))
    return times


@lru_cache(maxsize=100_000)
def pronunciation(word: str) -> tuple[tuple[float, str], ...]:
    """eSpeak's phones of a word: (start as a share of the word's duration, symbol).

    Raises :class:`KdkitError` for a word without phones.
    """
    wave, events = espeak.synthesise(word, "en-us")
    spoken = [(sample, normalise(ipa)) for sample, ipa in events]
    first = next((i for i, (_, symbol) in enumerate(spoken) if symbol), None)
    if first is None:
        raise KdkitError(f"eSpeak NG has no phones for {word!r}")
    last = max(i for i, (_, symbol) in enumerate(spoken) if symbol)
    begin = spoken[first][0]
    end = spoken[last + 1][0] if last + 1 < len(spoken) else len(wave)
    return tuple(((sample - begin) / (end - begin), symbol) for sample, symbol in spoken[first : last + 1])


def estimate_phones(utterance: Utterance, aligner: Aligner) -> Utterance:
    """The utterance with estimated phone times. Raises :class:`KdkitError` when it cannot be aligned."""
    words = clean(utterance.text, vocabulary=aligner.vocabulary).split()
    log_probs = aligner.log_probs(read_audio(utterance.audio))
    phones, now = [(0.0, SILENCE)], 0.0
    for word, (start, end) in zip(words, word_times(log_probs, words, aligner), strict=True):
        if start - now > HOP / SAMPLE_RATE:
            phones.append((round(now, 4), SILENCE))
        phones += [(round(start + share * (end - start), 4), symbol) for share, symbol in pronunciation(word)]
        now = end
    return replace(utterance, phones=(*phones, (round(now, 4), SILENCE)))


def add_phones(utterances: Sequence[Utterance], aligner: Aligner) -> list[Utterance]:
    """Utterances with phone times: their own, or estimates. Those that cannot be aligned are returned unchanged.

    Prints how many were estimated, with which aligner, and the first failure.
    """
    done, failed = [], []
    for utterance in tqdm(utterances, desc="aligning", unit="utt", mininterval=1.0):
        try:
            done.append(utterance if utterance.phones else estimate_phones(utterance, aligner))
        except KdkitError as error:
            failed.append(f"{utterance.id}: {error}")
            done.append(utterance)
    estimated = sum(bool(new.phones) and not old.phones for new, old in zip(done, utterances, strict=True))
    print(
        f"phone times of {estimated} utterances are estimates: letters aligned by {aligner.name}, phones by eSpeak NG"
    )
    if failed:
        print(f"{len(failed)} could not be aligned, the first: {failed[0]}")
    return done
