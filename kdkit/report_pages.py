"""The pages of a report, as HTML that needs no network: the index, and each executed notebook.

The index is made from the records that the notebooks left (:mod:`kdkit.results`); notebooks are rendered by nbconvert
with formulas as MathML, which browsers draw themselves, and without widgets, which need a server.
"""

from __future__ import annotations

import base64
import logging
import re
from html import escape
from pathlib import Path

import jinja2
import nbformat
from latex2mathml.converter import convert as latex_to_mathml
from markupsafe import Markup
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from kdkit.files import write_text

TEMPLATES = Path(__file__).parent / "templates"
ROLES = {
    "teacher": "teacher",
    "distilled": "distilled student",
    "scratch": "from scratch",
    "baseline": "baseline",
}
SOURCES = {"run": "trained in this run", "shipped": "shipped with the kit", "published": "published"}
STATUS = {
    "waiting": "not run",
    "running": "running",
    "done": "done",
    "failed": "failed",
    "interrupted": "stopped",
}


# ---------------------------------------------------------------------------------------------------- the index page


def write_index(out: Path, run: dict, records: dict[str, dict]) -> None:
    """Writes ``out/index.html``, everything embedded. ``run`` is what :mod:`kdkit.report` keeps of the run, ``records``
    maps a notebook's name to what :func:`kdkit.results.read_results` gives."""
    systems = [system for record in records.values() for system in record["systems"]]
    systems.sort(key=_place)
    splits = list(dict.fromkeys(split for system in systems for split in system["wer"]))
    notebooks = [_section(out, notebook, records.get(notebook["name"])) for notebook in run["notebooks"]]
    ends = [
        end for s in systems for entry in s["wer"].values() for end in entry.get("interval", [entry["value"]])
    ]
    scale = max([*ends, 0.01])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "percent": percent,
        "count": count,
        "duration": duration,
        "measure": measure,
        "share_of_scale": lambda value: round(100 * value / scale, 1),
    }
    page = environment.get_template("index.html.j2").render(
        run=run,
        css=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        notebooks=notebooks,
        systems=systems,
        splits=splits,
        story=story(systems, run["profile"]),
        verdicts=[item for notebook in notebooks for item in notebook["items"] if item["kind"] == "verdict"],
        shipped=any(system["source"] == "shipped" for system in systems),
        roles=ROLES,
        sources=SOURCES,
    )
    write_text(out / "index.html", page)


def _place(system: dict) -> tuple:
    """Order of the headline table: teachers, then each student by its labels, with its twin from scratch beneath, then
    baselines."""
    block = {"teacher": 0, "baseline": 2}.get(system["role"], 1)
    number = re.match(r"\d+(\.\d+)?", system["labels"])
    labels = float(number[0]) if number else 0.0
    return block, system["name"] if block == 1 else "", labels, list(ROLES).index(system["role"])


def story(systems: list[dict], profile: str) -> list[str]:
    """The finding in a few sentences, every number computed from the headline table's rows."""
    scored = [system for system in systems if "test-clean" in system["wer"]]
    teachers = [system for system in scored if system["role"] == "teacher"]
    students = sorted(
        (s for s in scored if s["role"] == "distilled"), key=lambda s: s["wer"]["test-clean"]["value"]
    )
    sentences = []
    if profile == "smoke":
        sentences.append(
            "Profile smoke only shows that everything runs: what it trains for a few steps means nothing."
        )
    if teachers:
        size = f" ({count(teachers[0]['parameters'])} parameters)" if teachers[0]["parameters"] else ""
        sentences.append(
            f"The fine-tuned teacher{size} gets {_wer(teachers[0])} of the words wrong, of voices it never heard."
        )
    if students:
        best = students[0]
        facts = [f"{count(best['parameters'])} parameters"] if best["parameters"] else []
        if teachers and best["parameters"] and teachers[0]["parameters"]:
            facts.append(
                f"{percent(best['parameters'] / teachers[0]['parameters'], digits=0)} of the teacher's"
            )
        if teachers and best["speed"] and teachers[0]["speed"]:
            facts.append(f"{best['speed'] / teachers[0]['speed']:.1f} times its speed")
        about = f" ({', '.join(facts)})" if facts else ""
        sentences.append(f"The best distilled student, {best['name']}{about}, gets {_wer(best)} wrong.")
    for student in sorted(students, key=lambda s: (s["name"], -s["wer"]["test-clean"]["value"])):
        twins = [s for s in scored if s["role"] == "scratch" and s["name"] == student["name"]]
        twins = [s for s in twins if s["labels"] == student["labels"]]
        twins.sort(key=lambda twin: twin["source"] != student["source"])
        if twins:
            who = (
                f"{student['name']} on {student['labels']} of labels"
                if student["labels"]
                else student["name"]
            )
            sentences.append(
                f"{who}: {_wer(student)} distilled, {_wer(twins[0])} from scratch. "
                f"{_compare(student, twins[0])}".strip()
            )
    return sentences


def _wer(system: dict) -> str:
    entry = system["wer"]["test-clean"]
    if "interval" not in entry:
        return percent(entry["value"])
    low, high = entry["interval"]
    return f"{percent(entry['value'])} ({percent(low, unit=False)} to {percent(high, unit=False)})"


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


def _section(out: Path, notebook: dict, record: dict | None) -> dict:
    record = record or {"title": notebook["name"], "items": [], "metrics": {}}
    return notebook | {
        "title": record["title"],
        "status_text": STATUS[notebook["status"]],
        "html": (out / "notebooks" / f"{notebook['name']}.html").is_file(),
        "items": [item | {"data": _embedded(out, item.get("file"))} for item in record["items"]],
        "metrics": {
            name: {"interval": None, "unit": "", "note": ""} | metric
            for name, metric in record["metrics"].items()
        },
    }


def _embedded(out: Path, file: str | None) -> str | None:
    """The file as a data URL, a page as what it holds; None where it is missing (a stopped run may lack it)."""
    if not file or not (out / file).is_file():
        return None
    if file.endswith(".html"):  # kdkit.results.Results.page: a head in the first line, then the piece itself
        return Markup((out / file).read_text(encoding="utf-8").partition("\n")[2])
    kind = {".png": "image/png", ".wav": "audio/wav"}[Path(file).suffix]
    return f"data:{kind};base64,{base64.b64encode((out / file).read_bytes()).decode('ascii')}"


def percent(value: float, unit: bool = True, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}" + ("\N{NO-BREAK SPACE}%" if unit else "")


def count(value: int | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k" if value >= 1e4 else str(value)


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def measure(value, unit: str = "") -> str:
    """A metric as people read it; shares become per cent."""
    if isinstance(value, (bool, str)):
        return str(value)
    if unit == "share":
        return percent(value)
    text = str(value) if isinstance(value, int) else f"{value:.4g}"
    return f"{text} {unit}".strip()


# --------------------------------------------------------------------------------------------- an executed notebook


class _Renderer(IPythonRenderer):
    """Markdown with formulas as MathML instead of TeX for a script from the network."""

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


def mathml(tex: str, display: str) -> str:
    """TeX as MathML; what the converter does not know is shown as the TeX it was."""
    try:
        return latex_to_mathml(tex.strip(), display=display)
    except Exception:  # the converter raises many kinds; a page with one raw formula beats no page
        return f"<code>{escape(tex)}</code>"


class _Exporter(HTMLExporter):
    @jinja2.pass_context
    def markdown2html(self, context, source):
        renderer = _Renderer(escape=False, attachments=context.get("cell", {}).get("attachments", {}))
        html = MarkdownWithMath(renderer=renderer).render(source)
        return re.sub(r'href="(?:\./)?([\w-]+)\.ipynb(#[^"]*)?"', r'href="\1.html\2"', html)


def write_notebook_html(path: Path, title: str, trail: list[tuple[str, str]]) -> Path:
    """Renders the executed notebook at ``path`` to a self-contained ``.html`` beside it and returns that path.

    ``trail`` lists (name, title) of all notebooks, for links between them.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    _tidy(notebook)
    config = Config()
    config.NbConvertBase.display_data_priority = [
        *(
            "text/html",
            "text/markdown",
            "image/svg+xml",
            "text/latex",
            "image/png",
            "image/jpeg",
            "text/plain",
        )
    ]
    log = logging.getLogger("kdkit.nbconvert")
    log.setLevel(
        logging.ERROR
    )  # nbconvert warns about every image without a description; _tidy gave them one
    exporter = _Exporter(
        config=config, template_name="notebook", extra_template_basedirs=[str(TEMPLATES)], log=log
    )
    css = HtmlFormatter(style="default").get_style_defs(".highlight")
    css += (TEMPLATES / "style.css").read_text(encoding="utf-8")
    page = {"title": title, "name": path.stem, "trail": trail, "css": css}
    html, _ = exporter.from_notebook_node(notebook, resources={"kdkit": page})
    target = path.with_suffix(".html")
    write_text(target, html)
    return target


def _tidy(notebook) -> None:
    """Makes outputs readable on a still page: progress bars collapse to their last state, images get a description."""
    heading = "this notebook"
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+\s+(.+)$", cell.source, flags=re.MULTILINE)
            heading = headings[-1] if headings else heading
            continue
        merged = []
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                if merged and merged[-1].output_type == "stream" and merged[-1].name == output.name:
                    merged[-1].text += output.text
                    continue
            elif "image/png" in output.get("data", {}):
                output.metadata.setdefault("alt", f"Figure in the section “{heading}”")
            merged.append(output)
        for output in merged:
            if output.output_type == "stream":
                output.text = last_states(output.text)
        cell.outputs = merged


def last_states(text: str) -> str:
    """What a terminal would show at the end: of a line rewritten with carriage returns only its last state."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        states = [state for state in line.split("\r") if state.strip()]
        lines.append(states[-1].rstrip() if states else "")
    return "\n".join(lines)
