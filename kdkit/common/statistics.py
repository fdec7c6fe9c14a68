"""Intervals over utterances, and what a comparison of two systems comes to: "better", "worse" or "inconclusive".

Rates (WER, accuracy) by the bootstrap: utterances are drawn again, with replacement. The jackknife, which leaves every
utterance out once, is for measures that the bootstrap would lift: mutual information and CKA are too high in a small
sample, and a bootstrap sample, which holds some utterances twice and others not at all, is like an even smaller one.
The jackknife tells the error and the bias (Efron and Stein 1981).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit, logit
from scipy.stats import bootstrap, t

from kdkit.common.errors import ConfigError, TextError


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


def jackknife_change(value: float, without: np.ndarray, measure: str, level: float = 0.95) -> Comparison:
    """A difference of two measures of the same utterances, more is better: less its bias, with its interval.

    ``value`` is the difference, ``without`` (utterances,) the difference without each of them. Student's t.
    """
    n = len(without)
    middle = n * value - (n - 1) * float(np.mean(without)) if n > 1 else value
    reach = float(t.ppf((1 + level) / 2, n - 1) * jackknife_error(without)) if n > 1 else float("nan")
    return Comparison(float(middle), (middle - reach, middle + reach), measure=measure, less_is_better=False)


def ratio_interval(
    errors: Sequence[float],
    totals: Sequence[float],
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Bootstrap interval of sum(errors) / sum(totals): whole utterances are drawn again, with replacement.

    Utterances, not words or frames: errors of one utterance (one voice, one noise) come together, so
    drawing words would give intervals that are too narrow. Percentile method. ``(nan, nan)`` for fewer than
    two utterances.
    """
    errors, totals = np.asarray(errors, dtype=float), np.asarray(totals, dtype=float)
    if len(errors) < 2:
        return float("nan"), float("nan")

    def ratio(e, n, axis=-1):
        e, n = e.sum(axis), n.sum(axis)
        return np.divide(e, n, out=np.zeros_like(n), where=n > 0)

    result = bootstrap(
        (errors, totals),
        ratio,
        paired=True,
        n_resamples=resamples,
        batch=max(1, 1_000_000 // len(errors)),  # memory stays flat on large test sets
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def by_group(values: Sequence[float], groups: Sequence[str]) -> np.ndarray:
    """Sums of ``values`` (one an utterance) over each group, groups in the order in which they first appear.

    Utterances whose group is not known ("") are left out: they are no group. Raises :class:`TextError` when the two
    differ in length.
    """
    if len(values) != len(groups):
        raise TextError(
            f"{len(values)} utterances but {len(groups)} speakers: give one for each, in the same order"
        )
    place = {group: i for i, group in enumerate(dict.fromkeys(filter(None, groups)))}
    known = [(place[group], value) for value, group in zip(values, groups, strict=True) if group]
    where, found = zip(*known) if known else ((), ())
    return np.bincount(np.array(where, dtype=int), weights=found, minlength=len(place))


VERDICTS = ("better", "worse", "inconclusive")


def verdict(interval: tuple[float, float], seeds: Collection[float] = ()) -> str:
    """What a gain (more is better) comes to, one of :data:`VERDICTS`.

    "better" when its 95 % ``interval`` and the gain of every seed lie above 0, "worse" when all of them lie below,
    else "inconclusive".
    """
    low, high = interval
    if low > 0 and all(value > 0 for value in seeds):
        return "better"
    return "worse" if high < 0 and all(value < 0 for value in seeds) else "inconclusive"


@dataclass(frozen=True)
class Comparison:
    """One system against another on the same utterances: the kit's one paired comparison.

    ``difference``: the ``measure`` (a share) of the first system minus that of the second, mean over seeds.
    ``interval``: its 95 % interval over utterances. ``seeds``: the difference of each seed; empty where two models were
    compared, and no seeds. ``less_is_better``: of error rates. ``unsettled``: which of the two were still improving
    when their training ended; then there is no verdict yet.
    """

    difference: float
    interval: tuple[float, float]
    seeds: Mapping[int, float] = field(default_factory=dict)
    measure: str = "WER"
    less_is_better: bool = True
    unsettled: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Is the first system better? See :func:`verdict`: the interval and every seed must agree."""
        if self.unsettled:
            return "inconclusive"
        if not self.less_is_better:
            return verdict(self.interval, self.seeds.values())
        low, high = self.interval
        return verdict((-high, -low), [-value for value in self.seeds.values()])

    @property
    def points(self) -> str:
        """The difference in percentage points: "-2.9 (-4.4 to -1.2)"; "-2.9" without an interval."""
        return f"{100 * self.difference:+.1f}" + (f" ({self._ends})" if self._ends else "")

    @property
    def _ends(self) -> str:
        """The interval in percentage points; "" for (nan, nan), that of one utterance."""
        low, high = (100 * end for end in self.interval)
        return "" if np.isnan(low) else f"{low:+.1f} to {high:+.1f}"

    @property
    def each_seed(self) -> str:
        """The difference of each seed in percentage points: "-2.1, -3.7"."""
        return ", ".join(f"{100 * value:+.1f}" for value in self.seeds.values())

    def __str__(self) -> str:
        """ "WER -2.9 points (95 % interval -4.4 to -1.2, paired; each seed -2.1, -3.7)"."""
        interval = f"95 % interval {self._ends}" if self._ends else "too few utterances for an interval"
        seeds = {0: "", 1: "; one seed"}.get(len(self.seeds), f"; each seed {self.each_seed}")
        return f"{self.measure} {100 * self.difference:+.1f} points ({interval}, paired{seeds})" + (
            f"; still improving: {', '.join(self.unsettled)}" if self.unsettled else ""
        )


def compare_counts(
    ours: Mapping[int, Sequence[float]],
    theirs: Mapping[int, Sequence[float]],
    totals: Sequence[float],
    measure: str = "WER",
    less_is_better: bool = True,
) -> Comparison:
    """Two systems, paired over seeds and utterances.

    ``ours`` and ``theirs``: {seed: counts of each utterance}, errors or hits; ``totals``: words or frames of each
    utterance. Only seeds that both have are compared; the interval draws whole utterances, of the mean over seeds.
    Raises :class:`ConfigError` when they share no seed.
    """
    shared = [seed for seed in ours if seed in theirs]
    if not shared:
        raise ConfigError(f"no seed in common: {sorted(ours)} and {sorted(theirs)}")
    total = sum(totals)
    mean = np.mean([np.subtract(ours[seed], theirs[seed]) for seed in shared], axis=0)
    seeds = {seed: float(sum(ours[seed]) / total - sum(theirs[seed]) / total) for seed in shared}
    return Comparison(float(mean.sum() / total), ratio_interval(mean, totals), seeds, measure, less_is_better)
