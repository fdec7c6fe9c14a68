"""Makes the notebooks from their sources: ``notebooks/src/NN_name.py`` (percent format) -> ``notebooks/NN_name.ipynb``.

    python notebooks/pair.py sync     write the notebooks, without outputs
    python notebooks/pair.py check    do they agree? names those that do not, exit status 1

Edit the sources; a notebook that was edited or run in place is brought back by ``sync``. An exercise, a cell tagged
``exercise`` that holds its solution, becomes two: a stub, and the solution folded away (kdkit.exercises.solutions).
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # this kit, installed or not

from kdkit.exercises.solutions import folded, split  # noqa: E402

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def build(source: str) -> str:
    """The notebook of a percent-format source, as JSON: no outputs, no widget state, cell ids made from the text."""
    notebook = jupytext.reads(source, fmt="py:percent")
    notebook.nbformat, notebook.nbformat_minor, notebook.metadata = 4, 5, nbformat.from_dict(METADATA)
    notebook.cells = [part for cell in notebook.cells for part in _parts(cell)]
    seen: set[str] = set()
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {key: value for key, value in cell.metadata.items() if key == "tags"}
        )
        digest = hashlib.sha256(cell.source.encode()).hexdigest()
        cell.id = next(
            i for i in (digest[:8], *(f"{digest[:8]}-{n}" for n in range(2, 1000))) if i not in seen
        )
        seen.add(cell.id)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"


def _parts(cell) -> list:
    """A cell as learners get it: an exercise is a stub with its solution folded away beneath."""
    if "exercise" not in cell.metadata.get("tags", []):
        return [cell]
    exercise = split(cell.source)
    cell.source = exercise.stub
    return [cell, nbformat.v4.new_markdown_cell(folded(exercise), metadata={"tags": ["solution"]})]


def pairs(folder: Path = HERE) -> dict[Path, Path]:
    """Source and notebook of every lesson in ``folder``."""
    return {source: folder / f"{source.stem}.ipynb" for source in sorted((folder / "src").glob("*.py"))}


def sync(folder: Path = HERE) -> list[Path]:
    """Writes the notebooks that differ from their source; returns them."""
    written = []
    for source, notebook in pairs(folder).items():
        wanted = build(source.read_text(encoding="utf-8"))
        if not notebook.exists() or notebook.read_text(encoding="utf-8") != wanted:
            notebook.write_text(wanted, encoding="utf-8", newline="\n")
            written.append(notebook)
    return written


def check(folder: Path = HERE) -> list[str]:
    """What does not agree, in words; empty when all is well."""
    problems = []
    for source, notebook in pairs(folder).items():
        if not notebook.exists():
            problems.append(f"{notebook.name} is missing")
        elif notebook.read_text(encoding="utf-8") != build(source.read_text(encoding="utf-8")):
            problems.append(f"{notebook.name} is not what src/{source.name} makes")
    expected = set(pairs(folder).values())
    problems += [
        f"{n.name} has no source in src" for n in sorted(folder.glob("*.ipynb")) if n not in expected
    ]
    return problems


if __name__ == "__main__":
    if sys.argv[1:] == ["sync"]:
        for path in sync():
            print(f"wrote {path}")
    elif sys.argv[1:] == ["check"]:
        if problems := check():
            sys.exit("\n".join(problems) + "\nedit the sources, then: make notebooks")
    else:
        sys.exit(__doc__)
