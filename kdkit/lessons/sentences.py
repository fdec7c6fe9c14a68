"""What a lesson says after a guess: sentences computed from the findings, which can say either thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from kdkit.common.statistics import Comparison

Changes = Mapping[float, Comparison]  # by minutes of labels


def adaptation(changes: Mapping[str, Comparison]) -> str:
    """Front-end adaptation against none, {trial: comparison}: how often was it better, how often worse?"""
    better = [name for name, change in changes.items() if change.verdict == "better"]
    worse = [name for name, change in changes.items() if change.verdict == "worse"]
    text = f"Of {len(changes)} ways to adapt the front-end first, {len(better)} were better than none"
    text += f" ({'; '.join(better)})" if better else ""
    text += f" and {len(worse)} worse"
    if worse:
        text += (
            f" ({'; '.join(worse)}): in a short study the encoder misses the steps that the front-end took"
        )
    return text + "."


def price(changes: Changes) -> str:
    """Fbank against waveform by minutes of labels: does Fbank cost words, and less with more labels?"""
    costs = [minutes for minutes, change in changes.items() if change.verdict == "worse"]
    shown = ", ".join(f"{100 * change.difference:+.1f}" for change in changes.values())
    text = f"Fbank changes the WER by {shown} points with {_list(changes)} minutes of labels: "
    text += f"worse at {len(costs)} of {len(changes)} budgets. "
    few, many = (changes[pick(changes)].difference for pick in (min, max))
    return text + ("More labels lower the price." if many < few else "More labels do not lower the price.")


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
            + "So it was not Fbank itself that cost words, but structure, normalisation and training of its front-end."
        )
    if before.verdict == "worse":
        return text + "What is left is the price of Fbank, or of a lever that was not pulled."
    return text + "There was no price to explain."


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
        + "So it is not “the fewer labels, the more it helps”: too few do not teach either start to write."
    )


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


def clean_and_other(wers: Mapping[str, tuple[float, float]]) -> str:
    """{recogniser: (WER on test-clean, on test-other)}: which leads, and are all worse on test-other?"""
    leads = [min(wers, key=lambda name: wers[name][i]) for i in (0, 1)]
    worse = [name for name, (clean, other) in wers.items() if other > clean]
    who = f"{leads[0]} leads on test-clean, {leads[1]} on test-other" if len(set(leads)) > 1 else ""
    text = f"{who or f'{leads[0]} leads on both test sets'}. "
    return text + f"{len(worse)} of {len(wers)} recognisers are worse on test-other."


def language_model(name: str, changes: Mapping[str, Comparison]) -> str:
    """Beam search with a language model against greedy, {test set: comparison}: where does it help more?"""
    each = ", ".join(f"{split} {change.points} points, {change.verdict}" for split, change in changes.items())
    clean, other = (changes[split].difference for split in ("test-clean", "test-other"))
    more = "less than on clean speech" if clean < other else "no less than on clean speech"
    return f"The language model from {name}: {each}. Where the sound is worse, it brings {more}."


def _list(minutes: Changes) -> str:
    return ", ".join(f"{budget:g}" for budget in minutes)
