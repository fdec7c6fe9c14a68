"""The log of a run: rows of numbers, appended to ``metrics.jsonl``, and optionally to TensorBoard."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

from kdkit.common.errors import ConfigError
from kdkit.common.files import write_text, writing


class RunLog:
    """``rows``: one dict per logged step or evaluation. A run that resumes at step ``first`` keeps earlier rows.

    ``evaluations`` are the rows that decisions depend on; a resumed run takes them from its checkpoint, so that a
    damaged log file changes nothing. Rows are flushed one by one: after a kill at most the last one is missing.
    """

    def __init__(
        self,
        out: Path,
        first: int = 0,
        write: bool = True,
        tensorboard: bool = False,
        evaluations: Sequence[dict] = (),
    ):
        self.rows, self.evaluations = [], list(evaluations)
        self._said, self._file, self._board = set(), None, None
        self._path = out / "metrics.jsonl"
        before = read_rows(self._path) if first and self._path.exists() else []
        self.rows = [
            row for row in before if row["step"] <= first and ("lr" in row or row in self.evaluations)
        ]
        self.rows += [row for row in self.evaluations if row not in self.rows]  # missing in the file
        self.rows.sort(key=lambda row: (row["step"], "lr" not in row))
        if not write:
            return
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        with writing(self._path):
            if not self._path.is_file() or self._path.read_bytes() != text.encode():
                write_text(self._path, text)
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        if tensorboard:
            self._board = _summary_writer(out / "tensorboard", first)

    def add(self, row: dict) -> None:
        self.rows.append(row)
        if self._file:
            with writing(self._path):
                self._file.write(json.dumps(row) + "\n")
                self._file.flush()
        if self._board:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, row["step"])

    def add_evaluation(self, row: dict) -> None:
        self.evaluations.append(row)
        self.add(row)

    def evaluated(self, step: int) -> bool:
        return any(row["step"] == step for row in self.evaluations)

    def warn(self, sentence: str) -> None:
        """Warns with ``sentence``, once per run."""
        if self._file and sentence not in self._said:
            self._said.add(sentence)
            warnings.warn(sentence, stacklevel=3)

    def close(self) -> None:
        for stream in filter(None, (self._file, self._board)):
            stream.close()


def read_rows(path: Path) -> list[dict]:
    """The rows of a ``metrics.jsonl`` in the file's order; truncated and damaged lines are skipped."""
    rows = []
    with writing(path):  # a folder, or no permission: the log could not be written either
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # such as the line that was being written at a kill
            continue
        numbers = isinstance(row, dict) and all(type(value) in (int, float) for value in row.values())
        if numbers and type(row.get("step")) is int and row["step"] >= 0:
            rows.append(row)
    return rows


def lasting(row: dict) -> dict:
    """A row without the speed, so that equal runs have equal rows."""
    return {name: value for name, value in row.items() if name != "times_real_time"}


def shown(row: dict, parts: dict) -> dict[str, str]:
    """A row of the log as the progress bar shows it."""
    names = ("loss", *parts) if len(parts) > 1 else ("loss",)
    return {name: f"{row[name]:.3f}" for name in names} | {"x real time": f"{row['times_real_time']:.0f}"}


def _summary_writer(folder: Path, first: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard=True needs the package tensorboard: pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder), purge_step=first)
