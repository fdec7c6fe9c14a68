"""One notebook through papermill: its parameters, its time limit, its memory, and how it ended."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import papermill
import psutil
from nbclient.exceptions import CellTimeoutError
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError, strip_color

from kdkit.common.errors import OutputError
from kdkit.common.files import write_text
from kdkit.common.parallel import ISOLATED
from kdkit.lessons.exercises.solutions import fill_solutions
from kdkit.report.plan import PACKAGE, read_notebook

STOPPED = 130  # exit status after Ctrl-C, as shells have it
MEMORY_EVERY = 0.5  # seconds between two samples of the memory
LOG_EVERY = 10.0  # seconds between lines where there is no terminal
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def run_notebook(
    path: Path,
    out: Path,
    parameters: dict[str, object],
    entry: dict,
    label: str,
    timeout: float | None = None,
    make_room: Callable[[], object] = lambda: None,
) -> int:
    """Runs the notebook at ``path`` and keeps it, executed, in ``out/notebooks``. Returns 0, 1 or 130.

    ``timeout`` is in minutes, for all cells together. Fills ``entry`` with how it went: ``status``, ``seconds``,
    ``peak_memory`` (bytes, see :class:`PeakMemory`) and ``error`` (where, message, source, traceback), else None.
    ``make_room`` is called after a failure, before the notebook is saved again: the disk may be full.
    """
    notebook = read_notebook(path)
    notebook.metadata.pop("widgets", None)  # state of an earlier run would survive this one
    fill_solutions(notebook)  # of exercises that nobody has answered
    notebook.cells = [cell for cell in notebook.cells if "badge" not in cell.metadata.get("tags", [])]
    executed = out / "notebooks" / path.name
    started = time.perf_counter()
    progress = Progress(label, len(notebook.cells) + 1)  # papermill adds the cell with our parameters
    memory = PeakMemory()
    error, source, trace = None, None, ""
    try:
        executed.parent.mkdir(parents=True, exist_ok=True)
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
            timeout_func=_time_left(started, timeout),
        )
        status, code = "done", 0
    except KeyboardInterrupt:
        # the cancelled task of the cell would log a traceback
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        status, code, error = "interrupted", STOPPED, "stopped by Ctrl-C or SIGTERM"
    except PapermillExecutionError as failure:
        status, code, error = "failed", 1, f"{failure.ename}: {failure.evalue}"
        source, trace = failure.source, "\n".join(failure.traceback)
    except CellTimeoutError:
        status, code = "failed", 1
        error = f"the notebook took longer than the {timeout:g} minutes of --timeout"
    except Exception as failure:  # a dead kernel, a full disk: the page must say so, whatever it is
        status, code, error = "failed", 1, f"{type(failure).__name__}: {failure}".strip()
    entry["status"], entry["seconds"] = status, time.perf_counter() - started
    entry["peak_memory"] = memory.close()
    if error is not None:
        source = progress.source if source is None else source
        error = {"where": progress.where, "message": strip_color(error), "source": source}
        error["traceback"] = strip_color(trace)
        make_room()
        _save_again(progress.notebook, executed)
    entry["error"] = error
    progress.close(status, error)
    return code


def _save_again(notebook, executed: Path) -> None:
    """Saves the notebook where papermill, on a full disk, has left a truncated file."""
    try:
        nbformat.read(executed, as_version=4)
    except Exception:  # empty, cut off, not there: nbformat, json and the file system each raise their own
        if notebook is not None:
            with suppress(OutputError):  # still no room
                write_text(executed, nbformat.writes(notebook) + "\n")


def _time_left(started: float, minutes: float | None):
    """The function that nbclient calls before every cell for its time limit in seconds; None: no limit."""
    if minutes is None:
        return None
    return lambda cell: max(0.1, started + 60 * minutes - time.perf_counter())


class Progress:
    """Shows notebook, cell, seconds and the last line that the cell printed, from a thread of its own.

    On a terminal it is one line that changes, in a log a line every ten seconds. It is also the file that papermill
    writes the cells' output to (``write``, ``flush``). ``where`` names the running cell: "cell 5 (under 'A heading')".
    """

    def __init__(self, label: str, cells: int, stream=None):
        self.label, self.cells = label, cells
        self.where, self.source = "the start of the kernel", ""
        self.notebook = None  # the one that is running, with what it has printed so far
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._index, self._output, self._pending = 0, "", ""
        self._started = time.monotonic()
        self._closed = threading.Event()
        self._say(f"{label}: {cells} cells")
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def cell(self, cells: list, index: int) -> None:
        """Cell number ``index`` of ``cells`` begins."""
        self._index, self.cells, self._output, self._pending = index + 1, len(cells), "", ""
        self.source = cells[index].source
        heading = ""
        for cell in cells[: index + 1]:
            if cell.cell_type == "markdown":
                headings = [line for line in cell.source.splitlines() if line.startswith("#")]
                heading = headings[-1] if headings else heading
        self.where = f"cell {index + 1}" + (f" (under '{heading.lstrip('# ')}')" if heading else "")

    def write(self, text: str) -> None:
        """Output of the running cell, as it comes; progress bars rewrite their line with carriage returns."""
        lines = re.split(r"[\r\n]+", _ESCAPES.sub("", self._pending + text))
        self._pending = lines[-1]
        whole = [line.strip() for line in lines if line.strip()]
        if whole:
            self._output = whole[-1]

    def flush(self) -> None:
        """Does nothing; papermill calls it."""

    def close(self, status: str, error: dict | None = None) -> None:
        """Ends the display with a line that says how the notebook ended."""
        self._closed.set()
        self._thread.join()
        ending = f"{self.label}: {status} after {self._clock()}"
        self._say(f"{ending}, in {error['where']}: {error['message']}" if error else ending)

    def _watch(self) -> None:
        while not self._closed.wait(0.5 if self._terminal else LOG_EVERY):
            parts = [f"{self.label}  cell {self._index}/{self.cells}  {self._clock()}", self._output]
            line = "  ".join(filter(None, parts))
            if self._terminal:
                width = shutil.get_terminal_size().columns - 1
                self._stream.write(f"\r\x1b[2K{line[:width]}")
                self._stream.flush()
            else:
                self._say(line[:200])

    def _say(self, line: str) -> None:
        self._stream.write(("\r\x1b[2K" if self._terminal else "") + line + "\n")
        self._stream.flush()

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60}:{seconds % 60:02d}"


class PeakMemory:
    """Peak memory of the child processes that were started after this was made: the kernel and its children.

    A thread samples the sum of their resident set sizes every half second: short peaks may be missed, shared pages
    count once for each process, and GPU memory is not included.
    """

    def __init__(self):
        self._self, self._peak, self._stop = psutil.Process(), 0, threading.Event()
        self._before = {child.pid for child in self._self.children()}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(MEMORY_EVERY):
            self._peak = max(self._peak, sum(map(self._resident, self._processes())))

    def _processes(self) -> list[psutil.Process]:
        try:
            started = [child for child in self._self.children() if child.pid not in self._before]
            return [process for child in started for process in (child, *child.children(recursive=True))]
        except psutil.Error:  # one ended while it was asked
            return []

    @staticmethod
    def _resident(process: psutil.Process) -> int:
        try:
            return process.memory_info().rss
        except psutil.Error:
            return 0

    def close(self) -> int:
        """Stops sampling; returns the peak in bytes."""
        self._stop.set()
        self._thread.join()
        return self._peak


class _Engine(NBClientEngine):
    """papermill's own engine, which also tells a :class:`Progress` which cell it runs."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, progress=None, **kwargs):
        cell_start, progress.notebook = nb_man.cell_start, nb_man.nb

        def start(cell, cell_index=None, **more):
            progress.cell(nb_man.nb.cells, cell_index)
            return cell_start(cell, cell_index, **more)

        nb_man.cell_start = start
        return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)


papermill_engines.register("kdkit", _Engine)


@contextmanager
def own_kernel():
    """Within, the kernel "python3" is this very interpreter with this very kdkit.

    A kernel of that name which the user once registered from another environment would otherwise be taken first.
    """
    before = os.environ.get("JUPYTER_PATH")
    with TemporaryDirectory(prefix="kdkit-kernel-") as folder:
        search = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
        spec = {
            # quiet: else it warns about local sockets, and reports the closing of its own when it is stopped
            "argv": [
                *(sys.executable, "-m", "ipykernel_launcher", "--quiet", "-f", "{connection_file}"),
                "--InteractiveShellApp.ignore_cwd=True",  # modules in a run's folder are not the notebook's
            ],
            "display_name": "Python 3",
            "language": "python",
            "env": ISOLATED | {"PYTHONPATH": search},
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
