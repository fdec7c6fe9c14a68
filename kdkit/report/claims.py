"""What the paper claims (the abstract of arXiv 2210.15631), beside what a run found.

A claim is answered by verdicts that notebooks computed. The paper's own tables are not quoted: its teacher, speech and
sizes are others, so directions can be compared, not figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Claim:
    """``evidence`` lists (beginning of a notebook's name, pattern of a verdict's name); the first that is there counts,
    with everything that fits it, or all of them with ``every``."""

    text: str
    evidence: tuple[tuple[str, str], ...]
    every: bool = True


CLAIMS = (
    Claim(
        "The structure of the student matters: deep & thin against shallow & wide.",
        (("02", "Deepest * against shallowest *"),),
    ),
    Claim(
        "A discriminative loss beside the regression loss helps, especially with few labels.",
        (("02", "both against regression only"), ("04", "Discriminative loss with few labels: *")),
    ),
    Claim(
        "Fbank instead of the waveform CNN saves 17 % of the parameters.", (("03", "*17 % fewer parameters"),)
    ),
    Claim(
        "It doubles the speed of inference.",
        (("03", "More than twice as fast full size *"), ("03", "More than twice as fast tiny *")),
        every=False,
    ),
    Claim(
        "It costs little accuracy.",
        (("03", "Fbank against waveform shipped twins on *"), ("03", "Fbank against waveform tiny-*")),
    ),
)


def answers(claim: Claim, verdicts: list[dict]) -> list[dict]:
    """The verdicts that answer a claim. A verdict has ``notebook``, ``name``, ``outcome`` and ``text``."""
    found = []
    for notebook, pattern in claim.evidence:
        fitting = [
            verdict
            for verdict in verdicts
            if verdict["notebook"].startswith(notebook) and fnmatchcase(verdict["name"], pattern)
        ]
        if fitting and not claim.every:
            return fitting
        found += fitting
    return found
