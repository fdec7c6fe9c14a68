"""The index page of a report, one HTML file that needs no network, and its short form in Markdown.

Both are made from what notebooks left (:mod:`kdkit.lessons.results`).
"""

from __future__ import annotations

import base64
import re
import struct
from collections import Counter
from pathlib import Path

import jinja2
from markupsafe import Markup

from kdkit.common import wording
from kdkit.common.files import write_text
from kdkit.lessons.records import SOURCES
from kdkit.report.findings import CLAIMS, answers, caveats, comparisons, headline, in_a_sentence, story
from kdkit.report.plan import PACKAGE
from kdkit.report.record import repeat_command

TEMPLATES = PACKAGE / "report" / "templates"
ROLES = {
    "teacher": "teacher",
    "distilled": "distilled student",
    "scratch": "from scratch",
    "baseline": "baseline",
}
STATUS = {
    "waiting": "not run",
    "running": "running",
    "done": "done",
    "failed": "failed",
    "interrupted": "stopped",
}


def write_index(out: Path, run: dict, records: dict[str, dict]) -> None:
    """Writes ``out/index.html``, everything embedded. ``run`` is as in :mod:`kdkit.report.record`, ``records`` maps a
    notebook's name to what :func:`kdkit.lessons.records.read_results` gives.
    """
    systems = [system for record in records.values() for system in record["systems"]]
    systems.sort(key=_place)
    notebooks = [_section(out, notebook, records.get(notebook["name"])) for notebook in run["notebooks"]]
    verdicts = [
        item | {"notebook": notebook["name"]}
        for notebook in notebooks
        for item in notebook["items"]
        if item["kind"] == "verdict"
    ]
    metrics = {name: record["metrics"] for name, record in records.items()}
    ends = [
        end for s in systems for entry in s["wer"].values() for end in entry.get("interval", [entry["value"]])
    ]
    scale = max([*ends, 0.01])
    filters = {"share_of_scale": lambda value: round(100 * value / scale, 1)}
    page = (
        environment(filters)
        .get_template("index.html.j2")
        .render(
            run=run,
            css=css(),
            notebooks=notebooks,
            systems=systems,
            splits=list(dict.fromkeys(split for system in systems for split in system["wer"])),
            caveats=caveats(run["profile"]),
            headline=headline(systems),
            comparisons=comparisons(systems),
            claims=[
                (claim.text, in_a_sentence(claim, found, run.get("sizes", {})), found)
                for claim in CLAIMS
                if (found := answers(claim, verdicts, metrics))
            ],
            verdicts=verdicts,
            shipped=any(system["source"] == "shipped" for system in systems),
            command=repeat_command(run),
            resume=repeat_command(run, _as_typed(out)) + " --resume",
            roles=ROLES,
            sources=SOURCES,
        )
    )
    write_text(out / "index.html", page)


def as_markdown(run: dict) -> str:
    """A run as one page of Markdown: findings, notebooks, recognisers, the number of verdicts, the machine."""
    machine = run["machine"]
    return (
        environment({"cell": lambda text: text.replace("|", "\\|").replace("\n", " ")})
        .get_template("summary.md.j2")
        .render(
            run=run,
            where=machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores",
            sentences=story(run["systems"], run["profile"]),
            splits=list(dict.fromkeys(split for system in run["systems"] for split in system["wer"])),
            outcomes=sorted(Counter(verdict["outcome"] for verdict in run["verdicts"]).items()),
            command=repeat_command(run),
        )
        + "\n"
    )


def environment(filters: dict | None = None) -> jinja2.Environment:
    """The templates of the pages, with filters for numbers (:mod:`kdkit.common.wording`)."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name.endswith(".html.j2"),
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    names = ("percent", "rate", "count", "duration", "measure", "between", "size", "moment")
    made.filters |= {name: getattr(wording, name) for name in names} | (filters or {})
    return made


def css() -> Markup:
    """The style sheet of the pages, to be embedded."""
    return Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))


def _as_typed(out: Path) -> str:
    """The run folder relative to the working directory, else its name: pages are passed on without paths."""
    try:
        return out.absolute().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return out.name


def _place(system: dict) -> tuple:
    """Order of the headline table: teachers, then each student by its labels, with its twin from scratch beneath, then
    baselines.
    """
    block = {"teacher": 0, "baseline": 2}.get(system["role"], 1)
    number = re.match(r"\d+(\.\d+)?", system["labels"])
    labels = float(number[0]) if number else 0.0
    return block, system["name"] if block == 1 else "", labels, list(ROLES).index(system["role"])


def _section(out: Path, notebook: dict, record: dict | None) -> dict:
    record = record or {"title": notebook["title"], "items": [], "metrics": {}}
    return notebook | {
        "title": re.sub(r"^\d+\. ", "", record["title"]),  # of one that did not run: its heading
        "status_text": STATUS[notebook["status"]],
        "html": (out / "notebooks" / f"{notebook['name']}.html").is_file(),
        "items": [
            item | {"data": _embedded(out, item.get("file")), "size": _pixels(out, item.get("file"))}
            for item in record["items"]
        ],
        "metrics": {
            name: {"interval": None, "unit": "", "note": ""} | metric
            for name, metric in record["metrics"].items()
        },
    }


def _pixels(out: Path, file: str | None) -> tuple[int, int] | None:
    """Width and height of a PNG, from its first 24 bytes: with them a page keeps its layout while it loads."""
    if not file or not file.endswith(".png") or not (out / file).is_file():
        return None
    with (out / file).open("rb") as picture:
        head = picture.read(24)
    return struct.unpack(">II", head[16:]) if len(head) == 24 else None


def _embedded(out: Path, file: str | None) -> str | None:
    """The file as a data URL, a page as what it holds; None where it is missing (a stopped run may lack it)."""
    if not file or not (out / file).is_file():
        return None
    if file.endswith(".html"):  # its first line is the head, see kdkit.lessons.results.Results.page
        return Markup((out / file).read_text(encoding="utf-8").partition("\n")[2])
    kind = {".png": "image/png", ".wav": "audio/wav"}[Path(file).suffix]
    return f"data:{kind};base64,{base64.b64encode((out / file).read_bytes()).decode('ascii')}"
