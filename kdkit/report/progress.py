"""Where a running notebook is, shown all the time: one changing line on a terminal, a line now and then in a log."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time

LOG_EVERY = 10.0  # seconds between lines where there is no terminal
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Progress:
    """Shows notebook, cell, seconds and the last line that the cell printed, from a thread of its own.

    It is also the file that papermill writes the cells' output to (``write``, ``flush``). ``where`` names the cell
    being run: "cell 5 (under 'What each layer knows')".
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
                heading = ([line for line in cell.source.splitlines() if line.startswith("#")] or [heading])[
                    -1
                ]
        self.where = f"cell {index + 1}" + (f" (under '{heading.lstrip('# ')}')" if heading else "")

    def write(self, text: str) -> None:
        """Output of the running cell, as it comes; progress bars rewrite their line with carriage returns."""
        lines = re.split(r"[\r\n]+", _ESCAPES.sub("", self._pending + text))
        self._pending = lines[-1]
        whole = [line.strip() for line in lines if line.strip()]
        if whole:
            self._output = whole[-1]

    def flush(self) -> None:
        """Nothing is kept back; papermill calls it."""

    def close(self, status: str, error: dict | None = None) -> None:
        """Stops showing; says how it ended."""
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
