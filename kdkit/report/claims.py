"""What the paper claims (the abstract of arXiv 2210.15631), beside what a run found.

A claim is answered by verdicts that notebooks computed. The paper's own tables are not quoted: its teacher, speech and
sizes are others, so directions can be compared, not figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Claim:
    """``evidence`` lists (beginning of a notebook's name, pattern of a verdict's name); all that fit count, or with
    ``first`` those of the first pattern that fits any. ``contrasts`` lists (beginning of a notebook's name, a metric
    that is a difference, what it is): above zero is better."""

    text: str
    evidence: tuple[tuple[str, str], ...]
    contrasts: tuple[tuple[str, str, str], ...] = ()
    first: bool = False


CLAIMS = (
    Claim(
        "A comprehensive study of student structures: deep & thin against shallow & wide.",
        (("02", "Deepest * against shallowest *"),),
        (
            (
                "02",
                "shipped study of structures/12 x 96",
                "Phone accuracy, deepest against shallowest, shipped study",
            ),
        ),
    ),
    Claim(
        "A discriminative loss beside the regression loss helps, especially with few labels.",
        (("02", "both against regression only"), ("04", "Discriminative loss with few labels: *")),
        (
            (
                "02",
                "shipped study of losses/both",
                "Phone accuracy, both losses against regression, shipped study",
            ),
        ),
    ),
    Claim(
        "Fbank instead of the waveform CNN saves 17 % of the parameters.", (("03", "*17 % fewer parameters"),)
    ),
    Claim(
        "It doubles the speed of inference.",
        (("03", "More than twice as fast full size *"), ("03", "More than twice as fast tiny *")),
        first=True,
    ),
    Claim(
        "It costs little accuracy.",
        (("03", "Fbank against waveform shipped twins on *"), ("03", "Fbank against waveform tiny-*")),
    ),
)


def answers(claim: Claim, verdicts: list[dict], metrics: dict[str, dict]) -> list[dict]:
    """What a run found about a claim, as verdicts: ``name``, ``outcome`` and ``text``.

    ``verdicts`` have ``notebook``, ``name``, ``outcome`` and ``text``; ``metrics`` are those of each notebook.
    """
    found = []
    for notebook, pattern in claim.evidence:
        fitting = [
            v for v in verdicts if v["notebook"].startswith(notebook) and fnmatchcase(v["name"], pattern)
        ]
        if fitting and claim.first:
            return fitting
        found += fitting
    for notebook, name, words in claim.contrasts:
        for book, numbers in metrics.items():
            if book.startswith(notebook) and "interval" in numbers.get(name, {}):
                found.append(_contrast(words, numbers[name]))
    return found


def _contrast(words: str, metric: dict) -> dict:
    low, high = metric["interval"]
    outcome = "better" if low > 0 else "worse" if high < 0 else "inconclusive"
    text = f"{100 * metric['value']:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}."
    return {"name": words, "outcome": outcome, "text": text}
