"""Intervals over utterances by the jackknife: every utterance is left out once.

For measures that the bootstrap would lift. Mutual information and CKA are too high in a small sample. A bootstrap
sample holds some utterances twice and others not at all, which is like an even smaller one, so that its intervals lie
beside the value. The jackknife leaves out one utterance at a time, which tells the error and the bias (Efron and Stein
1981).
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t


def jackknife_error(without: np.ndarray) -> np.ndarray:
    """Standard error of a measure, from its values ``without`` (utterances, ...) one utterance each."""
    n = len(without)
    return np.sqrt((n - 1) / n * np.square(without - without.mean(0)).sum(0))


def plain_interval(value: np.ndarray, without: np.ndarray) -> tuple[float, float]:
    """95 % interval value +- 1.96 errors of a measure between 0 and 1; (nan, nan) for fewer than two utterances."""
    if len(without) < 2:
        return float("nan"), float("nan")
    reach = 1.96 * float(jackknife_error(without))
    return max(0.0, float(value) - reach), min(1.0, float(value) + reach)


def unbiased_share(value: np.ndarray, without: np.ndarray, level: float = 0.95) -> np.ndarray:
    """A measure between 0 and 1 less its bias, and its interval.

    ``value`` (...) is the measure, ``without`` (utterances, ...) the measure without each utterance. Returns (..., 3):
    the value less the jackknife's estimate of its bias, low and high; ``value``, nan and nan for fewer than two
    utterances. It is made on the scale log(v / (1 - v)), where a value near 1 has room on both sides, with Student's t.
    """
    n, value = len(without), np.asarray(value, dtype=float)
    if n < 2:
        return np.stack([value, np.full(value.shape, np.nan), np.full(value.shape, np.nan)], -1)
    edge = 1e-12  # features that are the same have 1, where the scale has no number
    value, without = (logit(np.clip(v, edge, 1 - edge)) for v in (value, without))
    middle = n * value - (n - 1) * without.mean(0)
    reach = t.ppf((1 + level) / 2, n - 1) * jackknife_error(without)
    return expit(np.stack([middle, middle - reach, middle + reach], -1))
