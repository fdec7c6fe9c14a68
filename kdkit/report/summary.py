"""A run on one page of Markdown, for the page of a run in continuous integration."""

from __future__ import annotations

from collections import Counter

from kdkit.report.record import repeat_command
from kdkit.report.story import story
from kdkit.report.words import count, duration, moment, score, size


def as_markdown(run: dict) -> str:
    """The story, the notebooks and how they ended, the recognisers, the verdicts counted, and what it ran on."""
    machine = run["machine"]
    where = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    lines = [f"## kdkit report: {run['profile']}, seed {run['seed']}: {run['status']}", ""]
    lines += [f"{moment(run['started'])}, {duration(run['seconds'])}, on {where}.", ""]
    lines += [f"- {sentence}" for sentence in story(run["systems"], run["profile"])]
    lines += ["", "| notebook | status | time | memory |", "|---|---|---|---|"]
    for entry in run["notebooks"]:
        memory = size(entry["peak_memory"]) if entry["peak_memory"] else ""
        lines.append(f"| {entry['name']} | {entry['status']} | {duration(entry['seconds'])} | {memory} |")
    for entry in run["notebooks"]:
        if entry["error"]:
            lines += ["", f"**{entry['name']}, {_cell(entry['error']['where'])}**", "", "```"]
            lines += [entry["error"]["traceback"] or entry["error"]["message"], "```"]
    if run["systems"]:
        splits = list(dict.fromkeys(split for system in run["systems"] for split in system["wer"]))
        lines += [
            "",
            f"| recogniser | labels | parameters | {' | '.join(f'WER {s}' for s in splits)} | from |",
        ]
        lines += ["|---" * (4 + len(splits)) + "|"]
        for system in run["systems"]:
            scores = [score(system["wer"][s]) if s in system["wer"] else "" for s in splits]
            cells = [
                f"{system['name']}, {system['role']}",
                system["labels"],
                count(system["parameters"]),
                *scores,
            ]
            lines.append(f"| {' | '.join(map(_cell, [*cells, system['source']]))} |")
    outcomes = Counter(verdict["outcome"] for verdict in run["verdicts"])
    if outcomes:
        lines += [
            "",
            "Verdicts: "
            + ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
            + ".",
        ]
    return "\n".join([*lines, "", f"Again: `{repeat_command(run)}`"]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
