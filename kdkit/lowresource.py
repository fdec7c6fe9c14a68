"""Does a loss help *more* when labels are few? The change of its gain between two label budgets, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdkit.errors import TextError
from kdkit.score import Score, ratio_interval

Rate = tuple[float, float, float]  # WER, low, high: shares


@dataclass(frozen=True)
class Interaction:
    """Gains are WER of the baseline minus WER of the system, shares: above 0 the system errs less.

    ``difference``: gain with few labels minus gain with many; above 0 it helps more when labels are few. ``verdict``:
    "better" when the 95 % interval lies above 0, "not better" below, else "inconclusive".
    """

    few: float
    many: float
    interval: tuple[float, float]

    @property
    def difference(self) -> float:
        return self.few - self.many

    @property
    def verdict(self) -> str:
        low, high = self.interval
        return "better" if low > 0 else "not better" if high < 0 else "inconclusive"

    def __str__(self) -> str:
        low, high = (100 * end for end in self.interval)
        return (
            f"gain {100 * self.few:+.1f} points with few labels, {100 * self.many:+.1f} with many: "
            f"{100 * self.difference:+.1f} (95 % interval {low:+.1f} to {high:+.1f})"
        )


def interaction(
    system_few: Score, baseline_few: Score, system_many: Score, baseline_many: Score, seed: int = 0
) -> Interaction:
    """From four scores on the same utterances, by a paired bootstrap. It speaks for these four models, not for other
    seeds of the training. Raises :class:`TextError` when the references differ."""
    scores = (system_few, baseline_few, system_many, baseline_many)
    if len({score.references for score in scores}) > 1:
        raise TextError("the four systems were scored on different references: the same ones are needed")
    errors = [np.array(score.word_errors) for score in scores]
    change = (errors[1] - errors[0]) - (errors[3] - errors[2])
    interval = ratio_interval(change, system_few.word_counts, seed)
    return Interaction(baseline_few.wer - system_few.wer, baseline_many.wer - system_many.wer, interval)


def interaction_of_rates(few: Sequence[Rate], many: Sequence[Rate]) -> Interaction:
    """From published rates with intervals, (system, baseline) for each budget, as if the four were independent.

    They share utterances, so a paired comparison would be sharper: this one errs on the side of "inconclusive".
    """
    gains = [baseline[0] - system[0] for system, baseline in (few, many)]
    half = math.hypot(*((high - low) / 2 for pair in (few, many) for _, low, high in pair))
    difference = gains[0] - gains[1]
    return Interaction(*gains, (difference - half, difference + half))
