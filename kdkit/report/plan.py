"""Which notebooks run, with which parameters: all of it is checked before anything runs.

papermill only warns about a parameter that a notebook does not have, and passes strings where numbers are meant. Here
the cell tagged ``parameters`` defines names and types.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import nbformat

from kdkit.common.errors import ConfigError

GIVEN = ("profile", "seed", "out")  # parameters that every notebook has and the report sets
WORLD = "world"  # a parameter of those that are about one
PACKAGE = Path(__file__).resolve().parent.parent  # the folder kdkit


def find_notebooks(folder: Path | str | None = None) -> list[Path]:
    """The notebooks ``NN_name.ipynb`` of ``folder`` in order; by default the kit's own.

    Those lie beside the package in the source tree, and in ``share/kdkit/notebooks`` of an environment that kdkit was
    installed into.
    """
    if folder is None:
        places = [PACKAGE.parent / "notebooks", *_installed(), Path("notebooks")]
        folder = next((place for place in places if _notebooks_in(place)), places[-1])
    paths = _notebooks_in(Path(folder))
    if not paths:
        raise ConfigError(
            f"no notebooks NN_name.ipynb in {folder}: go to the folder of the kit, or name theirs with --notebooks"
        )
    return paths


def _notebooks_in(folder: Path) -> list[Path]:
    return sorted(folder.absolute().glob("[0-9][0-9]_*.ipynb"))


def _installed() -> list[Path]:
    """The folder of the notebooks that pip installed with this package, as a list; empty where there is none."""
    try:
        files = distribution("kdkit").files or []
    except PackageNotFoundError:
        return []
    return [Path(file.locate()).resolve().parent for file in files if file.suffix == ".ipynb"][:1]


def select(paths: Sequence[Path], only: Iterable[str] = (), start: str | None = None) -> list[Path]:
    """The selected notebooks of ``paths``: those named by ``only``, or those from ``start`` on; else all.

    A name is the file's name without ending, or its beginning: "02" or "02_distillation". Raises :class:`ConfigError`
    for a name that fits none, or both ways of choosing at once.
    """
    only = list(only)
    if only and start:
        raise ConfigError("choose either --only or --from, not both")
    if start:
        return list(paths[paths.index(_named(paths, start)) :])
    chosen = {_named(paths, name) for name in only}
    return [path for path in paths if path in chosen or not only]


def _named(paths: Sequence[Path], name: str) -> Path:
    found = [path for path in paths if path.stem == name] or [
        p for p in paths if name and p.stem.startswith(name)
    ]
    if len(found) != 1:
        there = ", ".join(path.stem for path in paths)
        raise ConfigError(
            f"{'several notebooks are' if found else 'no notebook is'} called {name!r}: there are {there}"
        )
    return found[0]


def parse_settings(paths: Sequence[Path], settings: Iterable[str]) -> dict[str, object]:
    """``["factor=2.5", "teacher_name=HUBERT_BASE"]`` as values of the types that the parameters cells declare.

    Values are Python literals; where the parameter is a text, quotes may be left out. Raises :class:`ConfigError` for
    a setting without "=", a name that no notebook of ``paths`` has or that has an option of its own, a name given
    twice, and a value that is no literal. :func:`choose_parameters` compares the types.
    """
    declared = {path: declared_parameters(path) for path in paths}
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ConfigError(f"--set {setting}: write it as name=value")
        if name in (*GIVEN, WORLD):
            raise ConfigError(f"--set {name}: it has an option of its own, --{name}")
        if name in values:
            raise ConfigError(f"--set {name} is given twice")
        defaults = [defaults[name] for defaults in declared.values() if name in defaults]
        if not defaults:
            raise ConfigError(_unknown(name, declared))
        values[name] = _literal(text.strip(), defaults[0], name)
    return values


def _literal(text: str, default: object, name: str) -> object:
    if isinstance(default, bool) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(default, str):
        return value if isinstance(value, str) else text
    if value is text:
        wanted = "a Python literal" if default is None else f"a {type(default).__name__} like {default!r}"
        raise ConfigError(f"--set {name}: {text!r} is not {wanted}")
    return value


def checked_world(name: str) -> str:
    """A world for the notebooks, which run in another folder: the path of a world file becomes absolute.

    Raises :class:`ConfigError` for a world that is not known, and for what is wrong in a world file.
    """
    from kdkit.lessons.world_files import FILES, find_world  # here: it loads torch

    if Path(name).suffix in FILES:
        name = str(Path(name).expanduser().absolute())
    find_world(name)
    return name


def choose_parameters(paths: Sequence[Path], parameters: dict[str, object]) -> dict[Path, dict[str, object]]:
    """Which of ``parameters`` each notebook takes, checked against their cells tagged ``parameters``.

    Raises :class:`ConfigError` for one that no notebook has, and for a value of another type.
    """
    known = {path: declared_parameters(path) for path in paths}
    for path, defaults in known.items():
        missing = [name for name in GIVEN if name not in defaults]
        if missing:
            raise ConfigError(f"{path.name}: the cell tagged 'parameters' lacks {', '.join(missing)}")
    for name, value in parameters.items():
        havers = [path for path in paths if name in known[path]]
        if not havers:
            raise ConfigError(_unknown(name, known))
        for path in havers:
            default = known[path][name]
            number = type(default) is float and type(value) is int
            if default is not None and not number and type(value) is not type(default):
                wanted, given = type(default).__name__, type(value).__name__
                raise ConfigError(f"{path.name}: parameter {name} is a {wanted}, not {value!r} ({given})")
    return {path: {n: v for n, v in parameters.items() if n in known[path]} for path in paths}


def _unknown(name: str, known: dict[Path, dict[str, object]]) -> str:
    names = sorted(set().union(*known.values()) - set(GIVEN))
    which = "no notebook has" if len(known) != 1 else f"{next(iter(known)).stem} does not have"
    return f"{which} a parameter {name!r}; there are {', '.join(names) or 'none but ' + ', '.join(GIVEN)}"


def declared_parameters(path: Path) -> dict[str, object]:
    """Names and defaults that a notebook's cell tagged ``parameters`` assigns; they are plain literals."""
    notebook = read_notebook(path)
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ConfigError(f"{path.name}: needs exactly one cell tagged 'parameters', has {len(cells)}")
    found = {}
    try:
        for statement in ast.parse(cells[0].source).body:
            single = [getattr(statement, "target", None)]
            targets = statement.targets if isinstance(statement, ast.Assign) else single
            for target in targets:
                if isinstance(target, ast.Name):
                    found[target.id] = ast.literal_eval(statement.value)
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f"{path.name}: the cell tagged 'parameters' must hold plain literals only: {error}"
        ) from error
    return found


def read_notebook(path: Path) -> nbformat.NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat, json and the file system each raise their own
        raise ConfigError(f"{path}: not a notebook ({error})") from error


def title_of(path: Path) -> str:
    """The notebook's first heading."""
    for cell in read_notebook(path).cells:
        for line in cell.source.splitlines():
            if cell.cell_type == "markdown" and line.startswith("# "):
                return line[2:].strip()
    return path.stem
