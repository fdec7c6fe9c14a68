"""What a lesson says after a guess: sentences computed from the findings, which can say either thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from kdkit.common.statistics import Comparison
from kdkit.common.wording import percent
from kdkit.probing import LayerScore, PhoneProbe
from kdkit.probing.clusters import Usage
from kdkit.speech.phone_classes import phone_class

Changes = Mapping[float, Comparison]  # by minutes of labels


# --- layers (notebook 01) -----------------------------------------------------------------------------------


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
    away, whole = cnn.accuracy - fbank.accuracy, best.accuracy - fbank.accuracy
    text = f"The CNN's features are {100 * away:+.1f} points from Fbank + deltas, {best.name} {100 * whole:+.1f}: "
    text += "as close as expected. " if abs(away) < abs(whole) / 2 else "not close. "
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


# --- studies (notebooks 02 and 03) --------------------------------------------------------------------------


def over_steps(changes: Mapping[str, Mapping[int, Comparison]], baseline: str) -> str:
    """{trial: {steps: comparison with the baseline}}: does the verdict of a short training outlive a longer one?"""
    lengths = sorted({steps for by_steps in changes.values() for steps in by_steps})
    if len(lengths) < 2:
        return "All trainings have equal steps: what more of them would change is not known."
    kept, turned, faded, found = [], [], [], []
    for name, by_steps in changes.items():
        least, most = min(by_steps), max(by_steps)
        first, last = by_steps[least], by_steps[most]
        told = f"{name} ({first.points} after {least:,}, {last.points} after {most:,} steps)"
        if first.verdict == last.verdict:
            kept.append(told)
        elif "inconclusive" not in (first.verdict, last.verdict):
            turned.append(told)
        else:
            (faded if last.verdict == "inconclusive" else found).append(told)
    parts = [
        ("The verdict turns", turned),
        ("It fades", faded),
        ("It appears only with more steps", found),
        ("It is the same", kept),
    ]
    text = f"Points from {baseline}, short and long. "
    return text + " ".join(f"{what}: {'; '.join(which)}." for what, which in parts if which)


def same_targets(own: Comparison, same: Comparison) -> str:
    """The deepest student against the shallowest, layer by layer (``own``) and with prediction heads as the shallowest
    has them (``same``): how much of the difference comes from its targets?
    """
    text = f"Layer by layer the deepest is {own.points} points from the shallowest, "
    text += f"with the shallowest's targets {same.points}. "
    moved = 100 * (same.difference - own.difference)
    if own.verdict == "worse" and moved <= 0:
        return text + "So its targets are not what holds it back."
    if own.verdict == "worse" != same.verdict:
        return text + "So what looked like the price of depth is that of its targets."
    if own.verdict == same.verdict == "worse":
        text += f"So {moved:.1f} points come from the targets. The rest goes with the structure: more layers, each of "
        return (
            text
            + "them narrower, with fewer dimensions for the probe to read; which of these it is, is not known."
        )
    return text + "Layer by layer it is not behind, so there is nothing to explain."


# --- front-ends (notebook 03) -------------------------------------------------------------------------------


def adaptation(changes: Mapping[str, Comparison]) -> str:
    """Front-end adaptation against none, {trial: comparison}: how often was it better, how often worse?"""
    better = [name for name, change in changes.items() if change.verdict == "better"]
    worse = [name for name, change in changes.items() if change.verdict == "worse"]
    text = f"Of {len(changes)} ways to adapt the front-end first, {len(better)} were better than none"
    text += f" ({'; '.join(better)})" if better else ""
    text += f" and {len(worse)} worse"
    if worse:
        text += f" ({'; '.join(worse)}): perhaps the encoder misses the steps that the front-end took"
    return text + "."


def price(changes: Changes) -> str:
    """Fbank against waveform by minutes of labels: does Fbank cost words, and less with more labels?"""
    verdicts = [change.verdict for change in changes.values()]
    shown = ", ".join(f"{100 * change.difference:+.1f}" for change in changes.values())
    text = f"Fbank changes the WER by {shown} points with {_list(changes)} minutes of labels: "
    text += f"worse at {verdicts.count('worse')}, better at {verdicts.count('better')} of {len(changes)} budgets. "
    few, many = (pick(changes) for pick in (min, max))
    lower = "lower" if changes[many].difference < changes[few].difference else "no lower"
    return text + f"With {many:g} minutes it is {lower} than with {few:g}."


def what_held_back(levers: Mapping[str, Comparison], before: Comparison, after: Comparison) -> str:
    """Which lever of the Fbank student brings most, and is the distance to the waveform twin closed?

    ``levers``: {what is changed: comparison with the trial before}; ``before`` and ``after``: the student without any
    and with the best of them, against the waveform twin.
    """
    each = ", ".join(f"{what} {100 * c.difference:+.1f} ({c.verdict})" for what, c in levers.items())
    most = min(levers, key=lambda what: levers[what].difference)
    text = f"Lever by lever, in points of WER: {each}. “{most}” brings most. "
    text += f"The distance to the waveform twin goes from {100 * before.difference:+.1f} ({before.verdict}) "
    text += f"to {100 * after.difference:+.1f} ({after.verdict}). "
    if before.verdict == "worse" and after.verdict != "worse":
        return (
            text
            + "So most of these words were not lost to Fbank itself, but to structure, normalisation and training of "
            "its front-end."
        )
    if before.verdict == "worse":
        return text + "What is left is the price of Fbank, or of a lever that was not pulled."
    return text + "This shows no price to explain."


def what_the_teacher_gave(before: Comparison, after: Comparison) -> str:
    """Distilled against scratch, with the first front-end and with the best one: is the teacher still needed?"""
    text = f"And the teacher? Distilled against scratch: {before.points} points with the first front-end "
    text += f"({before.verdict}), {after.points} with the best one ({after.verdict}). "
    if after.verdict == "better":
        return text + "What the teacher knows comes on top of a better front-end."
    return text + (
        "With the best one this study does not show that the teacher is needed, nor that it is not. A study that "
        "compares students with one another only would not have raised the question: a better front-end may learn "
        "from the labels alone part of what a teacher would have told."
    )


# --- labels (notebook 04) -----------------------------------------------------------------------------------


def curves(points: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """WER over minutes of labels, {start: [(minutes, WER, ...), ...]}: which is lowest, and do all of them fall?"""
    budgets = sorted({point[0] for own in points.values() for point in own})
    lowest = []
    for minutes in budgets:
        there = {name: wer for name, own in points.items() for m, wer, *_ in own if m == minutes}
        lowest.append(f"{min(there, key=there.get)} at {minutes:g} min")
    rising = [name for name, own in points.items() if any(b[1] >= a[1] for a, b in pairwise(sorted(own)))]
    text = f"Lowest: {', '.join(lowest)}. "
    return text + (
        f"These do not fall with every budget: {', '.join(rising)}."
        if rising
        else "Every curve falls with every budget."
    )


def where_most(name: str, changes: Changes) -> str:
    """Distilled against scratch by minutes of labels: where does distillation save most, where least?"""
    if all(change.verdict != "better" for change in changes.values()):
        return f"{name}: distillation is not better than scratch at any budget of this study."
    most, least = (pick(changes, key=lambda minutes: changes[minutes].difference) for pick in (min, max))
    text = (
        f"{name}: distillation saves most with {most:g} minutes of labels ({changes[most].points} points), "
    )
    text += f"least with {least:g} ({changes[least].points}). "
    if len(changes) < 2 or most == min(changes):
        return text + "The fewer labels, the more it helps, is not refuted here."
    return (
        text
        + "So it is not simply “the fewer labels, the more it helps”: too few may not teach either start to write."
    )


def longer(changes: Mapping[int, Comparison]) -> str:
    """Distilled against scratch by steps of fine-tuning: does the gain last, and when may it be judged?"""
    least, most = min(changes), max(changes)
    told = ", ".join(f"{change.points} after {steps:,}" for steps, change in changes.items())
    text = f"Distillation changes the WER by these points after so many steps: {told}. "
    first, last = changes[least], changes[most]
    shrinks = last.difference > first.difference  # of error rates: fewer are a gain
    text += f"From {least:,} to {most:,} steps the gain {'shrinks' if shrinks else 'grows'}: "
    if shrinks:
        text += "part of what a short study shows is how fast a start learns, not how far it gets. "
    else:
        text += "a short study shows too little of it. "
    early = [f"{steps:,}" for steps, change in changes.items() if change.unsettled]
    if not early:
        return text + "No training was still improving."
    text += f"After {', '.join(early)} steps a training was still improving"
    if last.unsettled:
        return text + f", even at the end ({', '.join(last.unsettled)}): this study cannot tell yet."
    return text + f", so only the later ones give a verdict; at the end it is “{last.verdict}”."


def words_and_characters(name: str, wer: tuple[float, float], cer: tuple[float, float]) -> str:
    """Error rates (greedy, with the language model): does it help the words more than the characters?"""
    words, characters = (after / before - 1 if before else 0.0 for before, after in (wer, cer))
    further = "does better than" if words < characters else "does no better than"
    changes = f"changes the WER by {100 * words:+.0f} % of it and the CER by {100 * characters:+.0f} % of it"
    return f"The language model from {name} {changes}: the WER {further} the CER."


def first_to_write(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Logs of fine-tunings, with step, loss and blanks: which writes first (blanks under 90 %), which ends lower?"""
    told, ends = [], {}
    for name, log in logs.items():
        rows = [row for row in log if "blanks" in row]
        steps = [row["step"] for row in rows if row["blanks"] < 0.9]
        told.append(f"{name} has under 90 % blanks " + (f"at step {steps[0]:,}" if steps else "nowhere yet"))
        ends[name] = rows[-1]["loss"]
    losses = ", ".join(f"{name} {loss:.2f}" for name, loss in ends.items())
    return f"{'; '.join(told)}. Loss at the end: {losses}; {min(ends, key=ends.get)} ends lower."


def clean_and_other(wers: Mapping[str, Mapping[str, float]]) -> str:
    """{recogniser: {test set: WER}}: which leads, and are all worse on the last test set than on the first?"""
    splits = list(next(iter(wers.values())))
    leads = {split: min(wers, key=lambda name: wers[name][split]) for split in splits}
    clean, other = splits[0], splits[-1]
    first = leads[clean]
    if clean == other:
        return f"{first} leads on {clean}."
    worse = [name for name, of in wers.items() if of[other] > of[clean]]
    each = ", ".join(f"{name} on {split}" for split, name in leads.items())
    text = f"{first} leads on all test sets. " if len(set(leads.values())) == 1 else f"In the lead: {each}. "
    return text + f"{len(worse)} of {len(wers)} recognisers are worse on {other}."


def language_model(name: str, changes: Mapping[str, Comparison]) -> str:
    """Beam search with a language model against greedy, {test set: comparison}: where does it help more?"""
    each = ", ".join(f"{split} {change.points} points, {change.verdict}" for split, change in changes.items())
    text = f"The language model from {name}: {each}."
    if len(changes) == 1:
        return text
    (clean, first), *_, (other, last) = changes.items()
    more = "less" if first.difference < last.difference else "no less"
    return f"{text} On {other} it brings {more} than on {clean}."


def _list(minutes: Changes) -> str:
    return ", ".join(f"{budget:g}" for budget in minutes)


# --- an experiment of one's own (notebooks 02, 03 and 04) ----------------------------------------------------


def beside_guess(guess: str | None, change: Comparison) -> str:
    """A guess that was made before, one of "better", "worse", "inconclusive" or None, beside what was found."""
    found = change.verdict
    if guess is None:
        return f"No guess was made before; found: {found}."
    said = f"Guessed before: {guess}; found: {found}. "
    if guess == found:
        return said + "As guessed."
    if found == "inconclusive":
        return said + "The guess is neither confirmed nor refuted: this study is too small, or the change is."
    if guess == "inconclusive":
        return said + "The change does more than guessed."
    return said + "It is the other way round: what did the guess not take into account?"
