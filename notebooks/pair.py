"""Makes the notebooks from their sources: ``notebooks/src/NN_name.py`` (percent format) -> ``notebooks/NN_name.ipynb``.

    python notebooks/pair.py sync     write the notebooks, without outputs
    python notebooks/pair.py check    do they agree? names those that do not, exit status 1
    python notebooks/pair.py home OWNER/REPOSITORY [BRANCH]
                                      says where this kit lives: "open in Colab" badges, and where the first cell
                                      installs kdkit from

Edit the sources; a notebook that was edited or run in place is brought back by ``sync``. An exercise, a cell tagged
``exercise`` that holds its solution, becomes two: a stub, and the solution folded away
(kdkit.lessons.exercises.solutions). A cell tagged ``setup`` becomes setup_cell.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # this kit, installed or not

from kdkit.lessons.exercises.solutions import folded, split  # noqa: E402

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def build(source: str, name: str = "", home: dict | None = None) -> str:
    """The notebook of a percent-format source, as JSON: no outputs, no widget state, cell ids made from the text.

    ``home``: {"repository": "owner/name", "branch": "main"}, for the badge and the first cell.
    """
    notebook = jupytext.reads(source, fmt="py:percent")
    notebook.nbformat, notebook.nbformat_minor, notebook.metadata = 4, 5, nbformat.from_dict(METADATA)
    notebook.cells = [part for cell in notebook.cells for part in _parts(cell, home)]
    if home:
        notebook.cells.insert(
            0, nbformat.v4.new_markdown_cell(_badge(name, home), metadata={"tags": ["badge"]})
        )
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


def _badge(name: str, home: dict) -> str:
    colab = "https://colab.research.google.com"
    address = f"{colab}/github/{home['repository']}/blob/{home['branch']}/notebooks/{name}.ipynb"
    return f"[![Open in Colab]({colab}/assets/colab-badge.svg)]({address})"


def _parts(cell, home: dict | None) -> list:
    """A cell as learners get it: an exercise is a stub with its solution folded away beneath."""
    if "setup" in cell.metadata.get("tags", []):
        cell.source = (HERE / "setup_cell.py").read_text(encoding="utf-8").rstrip()
        if home:
            kit = f"git+https://github.com/{home['repository']}@{home['branch']}"
            cell.source = cell.source.replace('KIT = ""', f'KIT = "{kit}"')
    if "exercise" not in cell.metadata.get("tags", []):
        return [cell]
    exercise = split(cell.source)
    cell.source = exercise.stub
    return [cell, nbformat.v4.new_markdown_cell(folded(exercise), metadata={"tags": ["solution"]})]


def home_of(folder: Path = HERE) -> dict | None:
    """Where the kit of ``folder`` lives, as ``home.json`` says; None where there is none."""
    path = folder / "home.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def move(repository: str, branch: str = "main", folder: Path = HERE) -> None:
    """Writes ``home.json``; ValueError for what is not OWNER/REPOSITORY."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or not re.fullmatch(r"[\w./-]+", branch):
        raise ValueError(f"{repository} {branch}: give OWNER/REPOSITORY and a branch")
    home = {"repository": repository, "branch": branch}
    (folder / "home.json").write_text(json.dumps(home) + "\n", encoding="utf-8", newline="\n")


def pairs(folder: Path = HERE) -> dict[Path, Path]:
    """Source and notebook of every lesson in ``folder``."""
    return {source: folder / f"{source.stem}.ipynb" for source in sorted((folder / "src").glob("*.py"))}


def sync(folder: Path = HERE) -> list[Path]:
    """Writes the notebooks that differ from their source; returns them."""
    written = []
    for source, notebook in pairs(folder).items():
        wanted = build(source.read_text(encoding="utf-8"), source.stem, home_of(folder))
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
        elif notebook.read_text(encoding="utf-8") != build(
            source.read_text(encoding="utf-8"), source.stem, home_of(folder)
        ):
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
    elif sys.argv[1:2] == ["home"] and len(sys.argv) in (3, 4):
        try:
            move(*sys.argv[2:])
        except ValueError as error:
            sys.exit(str(error))
        for path in sync():
            print(f"wrote {path}")
    else:
        sys.exit(__doc__)
