"""Notebooks of a few cells, for tests of reports."""

import json
import re
import textwrap
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kdkit.report import run_report

PARAMETERS = 'profile = "quick"  # which\nseed = 0\nout = "runs/lab"\nfactor: float = 1.5'
OPEN = """
from kdkit.lessons.results import Results
results = Results(out, {name!r}, title={title!r}, profile=profile, seed=seed)
"""


def write_notebook(
    folder: Path, name: str, *code: str, title: str = "A lesson", parameters: str = PARAMETERS
):
    cells = [new_markdown_cell(f"# {title}"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells.append(new_code_cell(OPEN.format(name=name, title=title)))
    for text in code:
        cells.append(
            new_markdown_cell(text) if text.startswith("#") else new_code_cell(textwrap.dedent(text))
        )
    folder.mkdir(exist_ok=True)
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")


def network_references(page: str) -> list[str]:
    """What a browser would load or follow outside the folder (names of XML vocabularies are not loaded)."""
    return re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//[^"'\s)>]+""", page) + re.findall(
        r"<script", page
    )


GOOD = """
    import sys
    results.metric("interpreter", sys.executable)
    results.metric("parameters", f"{profile} {seed} {factor}")
    results.system("Tiny teacher", "teacher", {"test-clean": (0.1, 0.08, 0.12)}, parameters=4_000_000, source="shipped")
    results.system("thin <fbank>", "distilled", {"test-clean": (0.2, 0.18, 0.22)}, labels="10 min")
    results.table("t", [{"layer": 1, "accuracy": "51.0 %"}], "By layer")
    results.verdict("layers differ", "seen", "They do.")
"""


def run(tmp_path: Path, **options) -> tuple[int, dict, str]:
    """Runs tmp_path/notebooks to tmp_path/out: exit status, run.json, index page."""
    out = tmp_path / "out"
    status = run_report("smoke", out, notebooks=tmp_path / "notebooks", **options)
    return (
        status,
        json.loads((out / "run.json").read_text()),
        (out / "index.html").read_text(encoding="utf-8"),
    )


COUNT = """
    import pathlib
    with open(pathlib.Path(out).parent / "{name}.ran", "a") as file:
        file.write("x")
    weights = pathlib.Path(out) / "training/{name}/weights"
    results.metric("went on from", len(weights.read_text()) if weights.exists() else 0)
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_text("www")
"""


def three(tmp_path: Path, last: str = "") -> None:
    """Three notebooks that count how often they ran, and train; the second also runs ``last``."""
    for name, more in (("01_first", GOOD), ("02_second", last), ("03_third", "")):
        write_notebook(tmp_path / "notebooks", name, COUNT.format(name=name), more or "pass")


def ran(tmp_path: Path) -> list[int]:
    """How often each of them has run."""
    files = (tmp_path / f"{name}.ran" for name in ("01_first", "02_second", "03_third"))
    return [len(file.read_text()) if file.exists() else 0 for file in files]
