"""Runs the notebooks in order by papermill and keeps what they found: executed notebooks, metrics and one index page.

The run folder afterwards::

    index.html                    the report: opens offline, everything embedded
    metrics.json                  every number of every notebook, and how each notebook ended
    notebooks/NN_name.ipynb .html executed
    metrics/ figures/ audio/ pages/   what each notebook handed over (kdkit.results)
    training/                     what notebooks trained, if they keep it

All of it is rewritten after each notebook, so a run that is stopped or fails leaves a page of what was done.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import shutil
import sys
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import papermill
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError, strip_color

from kdkit.errors import ConfigError
from kdkit.exercises.solutions import fill_solutions
from kdkit.files import write_text
from kdkit.machine import machine
from kdkit.profiles import get_profile
from kdkit.progress import Progress
from kdkit.report_pages import write_index, write_notebook_html
from kdkit.results import read_results

GIVEN = ("profile", "seed", "out")  # parameters that every notebook has and the report sets
OWNED = (
    "notebooks",
    "metrics",
    "figures",
    "audio",
    "pages",
    "training",
)  # folders of a run that a new run replaces
STOPPED = 130  # exit status after Ctrl-C, as shells have it


def run_report(
    profile: str,
    out: Path | str,
    seed: int = 0,
    overrides: dict[str, object] | None = None,
    notebooks: Path | str | None = None,
) -> int:
    """Runs every notebook of folder ``notebooks`` (default: the kit's own) in order and writes the report to ``out``.

    ``overrides`` sets further parameters in each notebook that has them. Returns the exit status: 0, 1 when a
    notebook failed (those after it are not run), 130 after Ctrl-C; the page and the executed notebooks are there in
    every case. An ``out`` that holds an earlier report is replaced.

    Raises :class:`ConfigError` before anything runs: unknown profile or parameter, a value of another type, no
    notebooks, or an ``out`` with other things in it.
    """
    get_profile(profile)
    paths = find_notebooks(notebooks)
    out = Path(out).absolute()
    parameters = {"profile": profile, "seed": seed, "out": str(out), **(overrides or {})}
    chosen = choose_parameters(paths, parameters)
    _clear(out)
    run = {
        "profile": profile,
        "seed": seed,
        "parameters": overrides or {},
        "status": "running",
        "started": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "seconds": 0.0,
        "machine": machine(),
        "notebooks": [
            {"name": path.stem, "status": "waiting", "seconds": 0.0, "error": None} for path in paths
        ],
    }
    trail = [(path.stem, _title(path)) for path in paths]
    started = time.perf_counter()
    status = 0
    with _own_kernel():
        for index, (path, entry) in enumerate(zip(paths, run["notebooks"], strict=True)):
            entry["status"] = "running"
            _write(out, run)
            label = f"[{index + 1}/{len(paths)}] {path.stem}"
            status = _run_notebook(path, out, chosen[path], entry, label)
            run["seconds"] = time.perf_counter() - started
            _render(out / "notebooks" / path.name, trail)
            if status:
                break
    run["status"] = {0: "done", STOPPED: "interrupted"}.get(status, "failed")
    _write(out, run)
    return status


def find_notebooks(folder: Path | str | None = None) -> list[Path]:
    """The notebooks ``NN_name.ipynb`` of ``folder`` in order; by default of the folder beside the package."""
    if folder is None:
        beside = Path(__file__).resolve().parent.parent / "notebooks"
        folder = beside if beside.is_dir() else Path("notebooks")
    paths = sorted(Path(folder).absolute().glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise ConfigError(
            f"no notebooks NN_name.ipynb in {folder}: go to the folder of the kit, or name theirs"
        )
    return paths


def choose_parameters(paths: list[Path], parameters: dict[str, object]) -> dict[Path, dict[str, object]]:
    """Which of ``parameters`` each notebook takes, checked against their cells tagged ``parameters``.

    papermill only warns about a parameter that a notebook does not have, and passes a text where a number is meant:
    here both raise :class:`ConfigError`.
    """
    known = {path: declared_parameters(path) for path in paths}
    for path, defaults in known.items():
        missing = [name for name in GIVEN if name not in defaults]
        if missing:
            raise ConfigError(f"{path.name}: the cell tagged 'parameters' lacks {', '.join(missing)}")
    for name, value in parameters.items():
        havers = [path for path in paths if name in known[path]]
        if not havers:
            names = sorted(set().union(*known.values()) - set(GIVEN))
            raise ConfigError(
                f"no notebook has a parameter {name!r}; there are {', '.join(names) or 'none but ' + ', '.join(GIVEN)}"
            )
        for path in havers:
            default = known[path][name]
            number = type(default) is float and type(value) is int
            if default is not None and not number and type(value) is not type(default):
                wanted, given = type(default).__name__, type(value).__name__
                raise ConfigError(f"{path.name}: parameter {name} is a {wanted}, not {value!r} ({given})")
    return {path: {n: v for n, v in parameters.items() if n in known[path]} for path in paths}


def declared_parameters(path: Path) -> dict[str, object]:
    """Names and defaults that a notebook's cell tagged ``parameters`` assigns; they are plain literals."""
    notebook = _read_notebook(path)
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ConfigError(f"{path.name}: needs exactly one cell tagged 'parameters', has {len(cells)}")
    found = {}
    try:
        for statement in ast.parse(cells[0].source).body:
            targets = (
                statement.targets
                if isinstance(statement, ast.Assign)
                else [getattr(statement, "target", None)]
            )
            for target in targets:
                if isinstance(target, ast.Name):
                    found[target.id] = ast.literal_eval(statement.value)
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f"{path.name}: the cell tagged 'parameters' must hold plain literals only: {error}"
        ) from error
    return found


def _run_notebook(path: Path, out: Path, parameters: dict[str, object], entry: dict, label: str) -> int:
    """Runs one notebook; fills ``entry`` with how it went; returns 0, 1 or 130."""
    notebook = _read_notebook(path)
    notebook.metadata.pop("widgets", None)  # state of an earlier run would survive this one
    fill_solutions(notebook)  # of exercises that nobody has answered
    executed = out / "notebooks" / path.name
    executed.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    progress = Progress(label, len(notebook.cells) + 1)  # papermill adds the cell with our parameters
    try:
        papermill.execute_notebook(
            notebook,
            str(executed),
            parameters=parameters,
            engine_name="kdkit",
            kernel_name="python3",
            progress_bar=False,
            cwd=str(out),
            progress=progress,
            stdout_file=progress,
            stderr_file=progress,
        )
        entry["status"] = "done"
        return 0
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(
            logging.CRITICAL
        )  # the task that waited for the cell dies noisily
        entry["status"] = "interrupted"
        entry["error"] = {"where": progress.where, "message": "stopped by Ctrl-C", "source": progress.source}
        return STOPPED
    except PapermillExecutionError as error:
        entry["status"] = "failed"
        entry["error"] = {
            "where": progress.where,
            "message": strip_color(f"{error.ename}: {error.evalue}"),
            "source": error.source,
            "traceback": strip_color("\n".join(error.traceback)),
        }
        return 1
    except Exception as error:  # a dead kernel, a full disk, a timeout: the page must say so, whatever it is
        entry["status"] = "failed"
        entry["error"] = {
            "where": progress.where,
            "message": strip_color(f"{type(error).__name__}: {error}".strip()),
            "source": progress.source,
        }
        return 1
    finally:
        entry["seconds"] = time.perf_counter() - started
        if entry["error"]:
            entry["error"] = {"source": "", "traceback": ""} | entry["error"]
        progress.close(entry["status"], entry["error"])


def _render(executed: Path, trail: list[tuple[str, str]]) -> None:
    """The executed notebook as HTML; a page that cannot be made must not stop the run."""
    if executed.is_file():
        try:
            write_notebook_html(executed, dict(trail)[executed.stem], trail)
        except Exception as error:  # nbconvert, the templates and the file system each raise their own
            print(f"no HTML of {executed}: {type(error).__name__}: {error}", file=sys.stderr)


class _Engine(NBClientEngine):
    """papermill's own engine, which also tells a :class:`Progress` where it is."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, progress=None, **kwargs):
        cell_start = nb_man.cell_start

        def start(cell, cell_index=None, **more):
            progress.cell(nb_man.nb.cells, cell_index)
            return cell_start(cell, cell_index, **more)

        nb_man.cell_start = start
        return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)


papermill_engines.register("kdkit", _Engine)


@contextmanager
def _own_kernel():
    """Within, the kernel "python3" is this very interpreter with this very kdkit.

    A kernel of that name which the user once registered from another environment would otherwise be taken first.
    """
    before = os.environ.get("JUPYTER_PATH")
    with TemporaryDirectory(prefix="kdkit-kernel-") as folder:
        spec = {
            # quiet: else it warns about local sockets, and reports the closing of its own when it is stopped
            "argv": [sys.executable, "-m", "ipykernel_launcher", "--quiet", "-f", "{connection_file}"],
            "display_name": "Python 3",
            "language": "python",
            "env": {
                "PYTHONPATH": os.pathsep.join(filter(None, [_package_root(), os.environ.get("PYTHONPATH")]))
            },
        }
        write_text(Path(folder, "kernels", "python3", "kernel.json"), json.dumps(spec))
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before


def _package_root() -> str:
    return str(Path(__file__).resolve().parent.parent)


def _write(out: Path, run: dict) -> None:
    """metrics.json and index.html from what is there now."""
    records = {entry["name"]: read_results(out, entry["name"]) for entry in run["notebooks"]}
    records = {name: record for name, record in records.items() if record}
    summary = {
        **run,
        "systems": [
            row | {"notebook": name} for name, record in records.items() for row in record["systems"]
        ],
        "metrics": {name: record["metrics"] for name, record in records.items()},
    }
    write_text(out / "metrics.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    write_index(out, run, records)


def _clear(out: Path) -> None:
    """Makes ``out`` an empty run folder. Refuses a folder that holds something but no report: it is not ours."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file: choose a folder for the report")
    if out.is_dir() and any(out.iterdir()) and not (out / "metrics.json").is_file():
        raise ConfigError(f"{out} is not empty and holds no earlier report: choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    for name in OWNED:
        shutil.rmtree(out / name, ignore_errors=True)


def _read_notebook(path: Path):
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat, json and the file system each raise their own
        raise ConfigError(f"{path}: not a notebook ({error})") from error


def _title(path: Path) -> str:
    """The notebook's first heading."""
    for cell in _read_notebook(path).cells:
        for line in cell.source.splitlines():
            if cell.cell_type == "markdown" and line.startswith("# "):
                return line[2:].strip()
    return path.stem
