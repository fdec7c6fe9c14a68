"""What notebook 01 says after a guess: sentences computed from the findings, each of which can say either."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from kdkit.common.wording import percent
from kdkit.probing import LayerScore, PhoneProbe
from kdkit.probing.clusters import Usage
from kdkit.speech.phone_classes import phone_class


def steadiness(ids: Sequence[int], phones: Sequence[str]) -> str:
    """Do the cluster ids (frames,) of an utterance last as long as its ``phones`` (frames,)?"""
    same = np.array([a == b for a, b in pairwise(ids)])
    inside = np.array([a == b for a, b in pairwise(phones)])
    within, across = (float(same[which].mean()) if which.any() else 0.0 for which in (inside, ~inside))
    text = f"Of neighbouring frames within a phone {percent(within)} have the same id, "
    text += f"across a border {percent(across)}. "
    text += (
        "So ids change at borders more often than within a phone; "
        if within > across
        else ("So ids do not change at borders more often than within a phone; ")
    )
    return text + (
        "and most of them last for several frames."
        if within > 0.5
        else "and most of them last one frame: an id is a part of a phone in its neighbourhood, not a letter for it."
    )


def shape(probe: PhoneProbe) -> str:
    """Is the CNN's output near Fbank, does the curve rise over the first layers, does it fall at the end?"""
    cnn, fbank, best = probe.front_end, probe.fbank, probe.layers[probe.best]
    touch = cnn.low <= fbank.high and fbank.low <= cnn.high
    text = (
        f"The CNN's features read {100 * (cnn.accuracy - fbank.accuracy):+.1f} points from Fbank + deltas: "
    )
    text += "as close as expected. " if touch or abs(cnn.accuracy - fbank.accuracy) < 0.03 else "not close. "
    early = probe.layers[max(1, len(probe.layers) // 4)]
    rise = early.accuracy - probe.layers[0].accuracy
    text += f"From H0 to {early.name} the curve {'rises' if rise > 0 else 'falls'} by {100 * abs(rise):.1f} points. "
    fall = best.accuracy - probe.layers[-1].accuracy
    return text + (
        f"The last layer is {100 * fall:.1f} points below {best.name}, the best."
        if fall > 0
        else "The last layer is the best: here the curve does not fall at the end."
    )


def together(first: tuple[str, Sequence[float]], second: tuple[str, Sequence[float]]) -> str:
    """Two curves (name, shares) over H0 .. HL: where is each highest, and do they rise and fall together?"""
    parts, values = [], []
    for name, curve in (first, second):
        curve = np.asarray(curve, dtype=float)
        low, high = int(curve.argmin()), int(curve.argmax())
        parts.append(
            f"{name}: highest in H{high} ({percent(curve[high])}), lowest in H{low} ({percent(curve[low])})"
        )
        values.append(curve)
    text = f"{'. '.join(part[0].upper() + part[1:] for part in parts)}. "
    if any(np.ptp(curve) == 0 for curve in values):
        return text + "One of the two does not change."
    correlation = float(np.corrcoef(values)[0, 1])
    says = "have little to do with each other"
    if abs(correlation) > 0.5:
        says = "rise and fall together" if correlation > 0 else "go opposite ways"
    return f"{text}Over the layers the two {says} (correlation {correlation:+.2f})."


def likely_mistakes(confusion: np.ndarray, phones: Sequence[str]) -> str:
    """Which phones are taken for which, (true, predicted) frames, and do mistakes stay within a class of sounds?"""
    wrong = np.array(confusion, dtype=float)
    total = wrong.sum()
    np.fill_diagonal(wrong, 0)
    if not wrong.any():
        return "There is no mistake."
    classes = np.array([phone_class(phone) for phone in phones])
    same = classes[:, None] == classes[None]
    said = np.asarray(confusion, dtype=float).sum(0)[None] * (1 - np.eye(len(phones)))
    chance = (wrong.sum(1) * (said * same).sum(1) / said.sum(1).clip(1e-9)).sum() / wrong.sum()
    kept = wrong[same].sum() / wrong.sum()
    order = np.argsort(-wrong, axis=None)[:5]
    pairs = [divmod(int(place), len(phones)) for place in order]
    named = ", ".join(f"[{phones[a]}] for [{phones[b]}]" for b, a in pairs if wrong[b, a])
    text = f"{percent(wrong.sum() / total)} of the frames are wrong. Most often said: {named}. "
    text += f"{percent(kept)} of the mistakes stay within a class (stop, fricative, nasal, vowel, ...), "
    return (
        text
        + f"{percent(chance)} would by chance: "
        + (
            "mistakes are between sounds that are alike."
            if kept > 1.5 * chance
            else "they are not between alike sounds."
        )
    )


def sharpness(usage: Sequence[Usage], clusters: int) -> str:
    """What the codebook's distribution is at the smallest and at the largest temperature of ``usage``."""
    small, large = min(usage, key=lambda u: u.tau), max(usage, key=lambda u: u.tau)
    text = f"At temperature {small.tau:g} a frame hesitates between {small.choices:.1f} ids: "
    text += "one id, nearly certain. " if small.choices < 2 else "not yet one certain id. "
    text += f"At {large.tau:g} it is {large.choices:.0f} of {clusters}: "
    even = large.choices > 0.8 * clusters
    return text + (
        "nearly the same for every frame, which says nothing."
        if even
        else "still not the same for every frame."
    )


def chance(labels: Sequence) -> float:
    """The accuracy of always guessing the most frequent of ``labels``."""
    return float(np.unique(np.asarray(labels), return_counts=True)[1].max() / len(labels))


def fades(phones: Sequence[LayerScore], speakers: Sequence[LayerScore]) -> str:
    """Phone and speaker probes over H0 .. HL: does the voice fade where the phones are clear?"""
    return together(
        ("phones", [score.accuracy for score in phones]), ("voices", [score.accuracy for score in speakers])
    )
