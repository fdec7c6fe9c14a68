"""Viterbi forced alignment: the most probable CTC path that spells a known text.

CTC (Graves et al. 2006) allows blanks between any two labels, before the first and after the last, and asks for one
between two equal labels. So the path goes through the states

    blank, label 0, blank, label 1, blank, ...

and begins in one of the first two and ends in one of the last two. From frame to frame it stays, goes on by one state,
or skips the blank between two different labels. Frame by frame, the score of the best path to every state is computed;
the choices, read backwards, are the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from torch import Tensor

from kdkit.common.errors import TextError
from kdkit.speech.text import frames_needed


@dataclass(frozen=True)
class Span:
    """Frames ``start`` to ``end`` (exclusive) of one label; ``score`` is its mean probability there."""

    start: int
    end: int
    score: float


def label_spans(log_probs: Tensor, labels: Sequence[int], blank: int = 0) -> list[Span]:
    """The span of every label on the best path through log-probabilities (T, V), in order.

    Raises :class:`TextError` when the labels do not fit into T frames.
    """
    if not labels:
        return []
    if frames_needed(labels) > len(log_probs):
        raise TextError(f"{len(labels)} letters do not fit into {len(log_probs)} frames")
    states = best_path(log_probs.numpy(), labels, blank)
    spans = []
    for state, group in groupby(range(len(states)), key=states.__getitem__):
        frames = list(group)
        if state % 2:  # a label
            scores = log_probs[frames, labels[state // 2]].exp()
            spans.append(Span(frames[0], frames[-1] + 1, scores.mean().item()))
    return spans


def best_path(log_probs: np.ndarray, labels: Sequence[int], blank: int) -> list[int]:
    """The state of every frame of (T, V): even ones are blanks, state 2i + 1 is label i. The labels must fit."""
    symbols = np.full(2 * len(labels) + 1, blank)
    symbols[1::2] = labels
    skips = np.zeros(len(symbols), bool)
    skips[3::2] = symbols[3::2] != symbols[1:-2:2]

    scores = np.full(len(symbols), -np.inf, np.float32)
    scores[:2] = log_probs[0, symbols[:2]]
    choices = np.zeros((len(log_probs), len(symbols)), np.int8)  # by how many states each best path went on
    for frame, emitted in enumerate(log_probs[1:], 1):
        by_one = np.append(-np.inf, scores[:-1])
        by_two = np.where(skips, np.append([-np.inf, -np.inf], scores[:-2]), -np.inf)
        choice = np.where(by_two > np.maximum(scores, by_one), 2, by_one > scores)
        scores = np.choose(choice, (scores, by_one, by_two)).astype(np.float32) + emitted[symbols]
        choices[frame] = choice

    state = len(symbols) - (1 if scores[-1] > scores[-2] else 2)
    states = [state]
    for choice in choices[:0:-1]:
        state -= int(choice[state])
        states.append(state)
    return states[::-1]
