"""An executed notebook as HTML that needs no network.

nbconvert renders it, with formulas as MathML, which browsers draw themselves, and without widgets, which need a server.
"""

from __future__ import annotations

import logging
import re
from html import escape
from pathlib import Path

import jinja2
import nbformat
from latex2mathml.converter import convert as latex_to_mathml
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from kdkit.common.files import write_text
from kdkit.report.formula_font import font_face
from kdkit.report.index_page import TEMPLATES

OUTPUT_TYPES = (  # the first that an output has is shown; widgets are none of them
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "text/latex",
    "image/png",
    "image/jpeg",
    "text/plain",
)


_LIVE = "application/vnd.jupyter.widget-view+json"


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
        html = re.sub(r'<a href="\.\./docs/[^"]*">(.*?)</a>', r"\1", html)  # a run folder has no docs
        return re.sub(r'href="(?:\./)?([\w-]+)\.ipynb(#[^"]*)?"', r'href="\1.html\2"', html)


def write_notebook_html(path: Path, title: str, trail: list[tuple[str, str]]) -> Path:
    """Renders the executed notebook at ``path`` to a self-contained ``.html`` beside it and returns that path.

    ``trail`` lists (name, title) of all notebooks, for links between them.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    _tidy(notebook)
    config = Config()
    config.NbConvertBase.display_data_priority = list(OUTPUT_TYPES)
    log = logging.getLogger("kdkit.nbconvert")
    log.setLevel(logging.ERROR)  # no warnings about images without a description: _tidy gives them one
    exporter = _Exporter(
        config=config, template_name="notebook", extra_template_basedirs=[str(TEMPLATES)], log=log
    )
    css = HtmlFormatter(style="default").get_style_defs(".highlight")
    css += (TEMPLATES / "style.css").read_text(encoding="utf-8")
    page = {"title": title, "name": path.stem, "trail": trail, "css": css}
    html, _ = exporter.from_notebook_node(notebook, resources={"kdkit": page})
    html = html.replace("</style>", f"{font_face(html)}</style>", 1)
    target = path.with_suffix(".html")
    write_text(target, html)
    return target


def _tidy(notebook) -> None:
    """Makes outputs readable on a static page: progress bars collapse to their last state, warnings to their message,
    images get a description, live widgets go where their still form stands (:mod:`kdkit.lessons.widgets.still`).
    """
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
            elif _LIVE in output.get("data", {}) and merged and _is_still(merged[-1], output.data[_LIVE]):
                continue
            elif "image/png" in output.get("data", {}):
                own = output.metadata.get("image/png", {}).get("alt")
                output.metadata.setdefault("alt", own or f"Figure in the section “{heading}”")
                if own:  # a figure of a lesson, whose HTML holds it twice, for light and dark pages
                    output.data.pop("text/html", None)
            merged.append(output)
        for output in merged:
            if output.output_type == "stream":
                output.text = plain_warnings(last_states(output.text))
        cell.outputs = [o for o in merged if o.output_type != "stream" or o.text.strip()]


def _is_still(output, view: dict) -> bool:
    return f"still-{view['model_id']}" in output.get("data", {}).get("text/html", "")


def last_states(text: str) -> str:
    """What a terminal would show at the end: of a line rewritten with carriage returns only its last state, and nothing
    of a progress bar that was wiped out with spaces.
    """
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        states = [state for state in line.split("\r") if state]
        lines.append(states[-1].rstrip() if states else "")
    return "\n".join(lines)


def plain_warnings(text: str) -> str:
    """Python's warnings without the file, the line and the source that they came from: a page is read elsewhere."""
    return re.sub(r"^\S.*?:\d+: \w*Warning: (.*)\n  .*$", r"Warning: \1", text, flags=re.MULTILINE)
