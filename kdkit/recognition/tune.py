"""Tuning of a beam search's weights on dev speech. On test speech it would bias the error rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch

from kdkit.common.errors import ConfigError
from kdkit.common.parallel import each
from kdkit.common.progress import tqdm
from kdkit.recognition.decode import BeamSearch, reweighted, text_of
from kdkit.recognition.evaluate import Emissions
from kdkit.recognition.wer import score
from kdkit.speech.text import Vocabulary

LM_WEIGHTS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
WORD_SCORES = (-1.0, 0.0, 1.0, 2.0)


@dataclass(frozen=True)
class WeightTrial:
    """One pair of weights and its error rates (shares) on dev."""

    lm_weight: float
    word_score: float
    wer: float
    cer: float


@dataclass(frozen=True)
class Tuned:
    """The search with the best weights, and all trials in order."""

    search: BeamSearch
    trials: tuple[WeightTrial, ...]
    utterances: int  # of dev

    @property
    def best(self) -> WeightTrial:
        """The trial with the lowest WER; ties go to the lowest CER, then to the smaller weights."""
        return min(self.trials, key=lambda t: (t.wer, t.cer, t.lm_weight, abs(t.word_score)))

    def __str__(self) -> str:
        return (
            f"LM weight {self.best.lm_weight:g}, word score {self.best.word_score:g}: "
            f"WER {100 * self.best.wer:.1f} % on {self.utterances} dev utterances, "
            f"the best of {len(self.trials)} settings"
        )


def tune(
    search: BeamSearch,
    dev: Emissions,
    lm_weights: Sequence[float] = LM_WEIGHTS,
    word_scores: Sequence[float] = WORD_SCORES,
    jobs: int | None = None,
    progress: bool = True,
) -> Tuned:
    """Tries every pair of weights on ``dev`` and keeps the one with the lowest WER.

    LM weights are tried only with a language model, word scores only with a lexicon. ``jobs``: processes, one for each
    core by default. Raises :class:`ConfigError` for no dev utterances.
    """
    if not dev.utterances:
        raise ConfigError("no dev utterances to choose the weights on")
    weights = lm_weights if search.lm else (0.0,)
    words = word_scores if search.words is not None else (0.0,)
    settings = [reweighted(search, *pair) for pair in product(weights, words)]
    rows = [row.numpy() for row in dev.log_probs]
    tasks = [(setting, rows, dev.references, dev.vocabulary) for setting in settings]
    with tqdm(
        each(_trial, tasks, jobs), "tuning on dev", len(tasks), disable=not progress, unit="setting"
    ) as bar:
        trials = tuple(bar)
    tuned = Tuned(search, trials, len(dev.utterances))
    return Tuned(reweighted(search, tuned.best.lm_weight, tuned.best.word_score), trials, tuned.utterances)


def _trial(task: tuple[BeamSearch, list, list[str], Vocabulary]) -> WeightTrial:
    search, rows, references, vocabulary = task
    texts = [text_of(search, torch.from_numpy(row), vocabulary) for row in rows]
    result = score(references, texts, vocabulary=vocabulary)
    return WeightTrial(search.lm_weight, search.word_score, result.wer, result.cer)
