"""The finding in a few figures and sentences, every number computed from the rows of the headline table."""

from __future__ import annotations

from kdkit.lessons.results import SOURCES
from kdkit.report.words import between, count, percent, score


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
    return score(system["wer"]["test-clean"])


def _compare(student: dict, twin: dict) -> str:
    ours, theirs = student["wer"]["test-clean"], twin["wer"]["test-clean"]
    if "interval" not in ours or "interval" not in theirs:
        return ""
    points = f"{100 * abs(theirs['value'] - ours['value']):.1f} points"
    if ours["interval"][1] < theirs["interval"][0]:
        return f"Distillation saves {points}; the intervals do not overlap."
    if theirs["interval"][1] < ours["interval"][0]:
        return f"Here distillation costs {points}; the intervals do not overlap."
    return (
        f"They differ by {points} and their intervals overlap, which alone cannot tell them apart: "
        "see the paired verdict."
    )
