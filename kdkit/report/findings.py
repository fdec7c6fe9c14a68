"""What a run found, in figures and sentences: the headline, each student against its twin, the claims of the paper.

Every number is computed from what the notebooks left; none is written here. The paper (arXiv 2210.15631) is known here
by its abstract alone. Its tables are not quoted: teacher, speech and sizes are others, so that directions can be
compared, not figures.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase

from kdkit.common.wording import between, count, percent, rate
from kdkit.lessons.records import OUTCOMES, SOURCES

# --- recognisers -------------------------------------------------------------------------------------------------


def headline(systems: list[dict]) -> list[dict]:
    """What stands largest on the page: the teacher, the best distilled student, and its twin from scratch.

    Each has ``role``, ``label``, ``value`` and ``interval`` (WER on test-clean), ``lines`` (size, speed, ...).
    """
    teacher, student, twin = _main_three(systems)
    cards = []
    for system, label in ((teacher, "Teacher"), (student, "Student"), (twin, "The same, from scratch")):
        if system:
            wer = system["wer"]["test-clean"]
            lines = [system["name"]] if system["name"] != system["role"] else []
            lines += [] if system is twin else _size_and_speed(system, teacher if system is student else None)
            lines += [f"{system['labels']} of labels"] if system["labels"] else []
            lines += [SOURCES[system["source"]]]
            card = {"role": system["role"], "label": label, "value": percent(wer["value"]), "lines": lines}
            cards.append(card | {"interval": between(wer.get("interval"), "share").strip(" ()")})
    return cards


def _main_three(systems: list[dict]) -> tuple[dict | None, dict | None, dict | None]:
    """Teacher, best distilled student, and the network of its name and labels that was trained from scratch."""
    scored = [system for system in systems if "test-clean" in system["wer"]]
    teacher = next((system for system in scored if system["role"] == "teacher"), None)
    students = [system for system in scored if system["role"] == "distilled"]
    student = min(students, key=lambda s: s["wer"]["test-clean"]["value"], default=None)
    twins = twins_of(student, scored) if student else []
    return teacher, student, twins[0] if twins else None


def twins_of(student: dict, scored: list[dict]) -> list[dict]:
    """Networks like ``student`` with as many labels, trained from scratch; those from the same source first."""
    twins = [s for s in scored if s["role"] == "scratch" and s["name"] == student["name"]]
    twins = [s for s in twins if s["labels"] == student["labels"]]
    return sorted(twins, key=lambda twin: twin["source"] != student["source"])


def _size_and_speed(system: dict, teacher: dict | None) -> list[str]:
    lines = []
    if system["parameters"]:
        share = teacher and teacher["parameters"] and system["parameters"] / teacher["parameters"]
        of = f", {percent(share, digits=0)} of the teacher's" if share else ""
        lines.append(f"{count(system['parameters'])} parameters{of}")
    if system["speed"]:
        ratio = teacher and teacher["speed"] and system["speed"] / teacher["speed"]
        lines.append(
            f"{ratio:.1f} times the teacher's speed" if ratio else f"{system['speed']:.0f} times real time"
        )
    return lines


def story(systems: list[dict], profile: str) -> list[str]:
    """The finding in a few sentences: teacher, best student, and each student against its twin from scratch."""
    teacher, student, _ = _main_three(systems)
    sentences = caveats(profile)
    if teacher:
        size = f" ({count(teacher['parameters'])} parameters)" if teacher["parameters"] else ""
        sentences.append(
            f"The fine-tuned teacher{size} gets {score_of(teacher)} of the words wrong, of voices it never heard."
        )
    if student:
        facts = ", ".join(_size_and_speed(student, teacher))
        about = f" ({facts})" if facts else ""
        sentences.append(
            f"The best distilled student, {student['name']}{about}, gets {score_of(student)} wrong."
        )
    return sentences + comparisons(systems)


def caveats(profile: str) -> list[str]:
    if profile != "smoke":
        return []
    return ["Profile smoke only shows that everything runs: what it trains for a few steps means nothing."]


def comparisons(systems: list[dict]) -> list[str]:
    """A sentence for each distilled student that has a twin from scratch with as many labels."""
    scored = [system for system in systems if "test-clean" in system["wer"]]
    students = [system for system in scored if system["role"] == "distilled"]
    sentences = []
    for student in sorted(students, key=lambda s: (s["name"], -s["wer"]["test-clean"]["value"])):
        twins = twins_of(student, scored)
        if twins:
            who = student["name"] + (f" on {student['labels']} of labels" if student["labels"] else "")
            sentences.append(
                f"{who}: {score_of(student)} distilled, {score_of(twins[0])} from scratch. "
                f"{_compare(student, twins[0])}".strip()
            )
    return sentences


def score_of(system: dict) -> str:
    """WER on test-clean with its interval."""
    return rate(system["wer"]["test-clean"])


def _compare(student: dict, twin: dict) -> str:
    """What the paired comparison says, if the run made one; else what the two intervals say."""
    if paired := student.get("against_scratch", {}).get("test-clean"):
        points = f"{100 * paired['value']:+.1f} points{between(paired.get('interval'), 'share')}"
        return f"Distilled against scratch, paired: {paired['verdict']}, WER {points}."
    ours, theirs = student["wer"]["test-clean"], twin["wer"]["test-clean"]
    if "interval" not in ours or "interval" not in theirs:
        return ""
    points = f"{100 * abs(theirs['value'] - ours['value']):.1f} points"
    if ours["interval"][1] < theirs["interval"][0]:
        return f"Distillation saves {points}; the intervals do not overlap."
    if theirs["interval"][1] < ours["interval"][0]:
        return f"Here distillation costs {points}; the intervals do not overlap."
    return f"They differ by {points} and their intervals overlap, which alone cannot tell them apart."


# --- the claims of the paper -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """``evidence`` lists (beginning of a notebook's name, pattern of a verdict's name); all that fit count, or with
    ``first`` those of the first pattern that fits any. ``contrasts`` lists (beginning of a notebook's name, pattern of
    a metric that is a paired comparison and has a verdict, what it is); of a study with several lengths the longest
    counts. ``budget`` says
    what the run itself spent on it, with fields of its profile in braces.
    """

    text: str
    evidence: tuple[tuple[str, str], ...]
    contrasts: tuple[tuple[str, str, str], ...] = ()
    first: bool = False
    budget: str = ""


CLAIMS = (
    Claim(
        "The structure of a student matters: deep & thin against shallow & wide (the abstract names no winner).",
        (("02", "Deepest * against shallowest *"),),
        (
            (
                "02",
                "study of structures, shipped/12 x ?? against 2 x *",
                "Phone accuracy, deepest against shallowest, shipped study",
            ),
            (
                "02",
                "study of structures, shipped/12 x *heads against 2 x *",
                "Phone accuracy, deepest against shallowest with the same targets, shipped study",
            ),
        ),
        budget="{study_steps} steps a student, {structure_seeds} a structure, {study_minutes:g} minutes of speech",
    ),
    Claim(
        "A discriminative loss beside the regression loss helps, especially with few labels.",
        (("02", "both against regression only"), ("04", "Discriminative loss with few labels: *")),
        (
            (
                "02",
                "study of losses, shipped/both against regression*",
                "Phone accuracy, both losses against regression, shipped study",
            ),
        ),
        budget="{study_steps} steps a student, {study_seeds} a loss, {study_minutes:g} minutes of speech",
    ),
    Claim(
        "Fbank instead of the waveform CNN saves 17 % of the parameters.", (("03", "*17 % fewer parameters"),)
    ),
    Claim(
        "It doubles the speed of inference.",
        (("03", "More than twice as fast full size *"), ("03", "More than twice as fast *")),
        first=True,
        budget="{speed_rounds} rounds of measurement on this machine",
    ),
    Claim(
        "It costs little accuracy.",
        (
            ("03", "Fbank against waveform shipped twins on *"),
            ("03", "Fbank against waveform *sw * min"),
            ("03", "Fbank against waveform, 6,000 steps: *"),
        ),
        budget="{twin_steps} steps a twin",
    ),
    Claim(
        "A front-end that is adapted first, for some steps alone, distils better.",
        (("03", "*adaptation for * against no adaptation*"),),
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
    for notebook, pattern, words in claim.contrasts:
        numbers = {
            name: m for book, ms in metrics.items() if book.startswith(notebook) for name, m in ms.items()
        }
        fitting = [pair for pair in numbers.items() if fnmatchcase(pair[0], pattern) and "verdict" in pair[1]]
        if fitting:
            name, metric = max(fitting, key=lambda pair: _length(pair[0]))
            after = f", {_length(name):,} steps" if _length(name) else ""
            found.append(_contrast(f"{words}{after}", metric))
    return found


def in_a_sentence(claim: Claim, found: list[dict], sizes: dict) -> str:
    """What was found about a claim, counted, and what this run spent on it. ``sizes``: those of its profile."""
    numbers = Counter(item["outcome"] for item in found)
    counted = ", ".join(f"{numbers[outcome]} {outcome}" for outcome in OUTCOMES if outcome in numbers)
    said = f"{len(found)} finding{'s' if len(found) > 1 else ''}: {counted}."
    if not claim.budget or not sizes:
        return said
    seeds = {name: value for name, value in sizes.items() if name.endswith("_seeds")}
    spoken = {name: f"{len(value)} seed{'s' if len(value) > 1 else ''}" for name, value in seeds.items()}
    shipped = any("shipped" in f"{item['name']} {item['text']}".lower() for item in found)
    more = "; what is marked as shipped was trained for longer" if shipped else ""
    return f"{said} This run itself: {claim.budget.format_map(sizes | spoken)}{more}."


def _length(name: str) -> int:
    """The number of steps at the end of a metric's name, of studies with several; 0 where there is none."""
    told = re.search(r", ([0-9,]+) steps$", name)
    return int(told[1].replace(",", "")) if told else 0


def _contrast(words: str, metric: dict) -> dict:
    seeds = ", ".join(f"{100 * value:+.1f}" for value in metric["seeds"])
    text = f"{100 * metric['value']:+.1f} points, "
    if interval := metric.get("interval"):
        low, high = (f"{100 * end:+.1f}" for end in interval)
        text += f"95 % interval {low} to {high}, paired"
    else:
        text += "paired, too few utterances for an interval"
    text += f"; each seed {seeds}." if seeds else "."
    return {"name": words, "outcome": metric["verdict"], "text": text}
