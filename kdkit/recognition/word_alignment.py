"""Where the words of a text are in a recogniser's emissions: the best CTC path that spells it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
import torchaudio.functional as AF
from torch import Tensor
from torchaudio.functional import TokenSpan

from kdkit.common.errors import TextError
from kdkit.speech.audio import SAMPLE_RATE
from kdkit.speech.frames import HOP, RECEPTIVE_FIELD
from kdkit.speech.text import Vocabulary, frames_needed


def frame_time(frame: int) -> float:
    """Where a frame begins, in seconds. It hears samples 320 t to 320 t + 400 and stands for the 20 ms around their
    middle, from 320 t + 40 on; before that the frame before it is nearer.
    """
    return (HOP * frame + (RECEPTIVE_FIELD - HOP) / 2) / SAMPLE_RATE


def timed_words(
    log_probs: Tensor, words: Sequence[str], vocabulary: Vocabulary, start: int = 0
) -> list[tuple[float, float, float]]:
    """(start, end, score) of each word, in seconds, by :func:`word_spans`: from its first letter to its last, and the
    mean probability of its letters. ``start``: frames that went before (T, V)."""
    return [
        (
            frame_time(start + spans[0].start),
            frame_time(start + spans[-1].end),
            sum(span.score for span in spans) / len(spans),
        )
        for spans in word_spans(log_probs, words, vocabulary)
    ]


def word_spans(log_probs: Tensor, words: Sequence[str], vocabulary: Vocabulary) -> list[list[TokenSpan]]:
    """For each word the spans of its letters, on the best path through log-probabilities (T, V) that spells them all.

    A span has ``start`` and ``end`` (frames) and ``score``, the mean probability of its letter. Raises
    :class:`TextError` for characters outside the vocabulary, and for words that do not fit into so many frames.
    """
    spelled = [vocabulary.encode(word) for word in words]
    between = [] if vocabulary.boundary is None else [vocabulary.boundary]
    numbers = [n for i, word in enumerate(spelled) for n in [*(between if i else ()), *word]]
    if not numbers:
        return []
    if frames_needed(numbers) > len(log_probs):
        raise TextError(f"{len(numbers)} letters do not fit into {len(log_probs)} frames")
    targets = torch.tensor([numbers], dtype=torch.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchaudio announces its own future
        path, scores = AF.forced_align(log_probs[None].contiguous(), targets, blank=vocabulary.blank)
        spans = iter(AF.merge_tokens(path[0], scores[0].exp(), blank=vocabulary.blank))
    found = []
    for i, word in enumerate(spelled):
        if i and between:
            next(spans)
        found.append([next(spans) for _ in word])
    return found
