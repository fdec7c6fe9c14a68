"""The log of a training run: rows of numbers in ``metrics.jsonl``, as they come, and in TensorBoard if wanted."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from kdkit.errors import ConfigError
from kdkit.files import write_text


class RunLog:
    """``rows``: one dict for each logged step. A run that goes on from step ``first`` keeps the rows up to there.

    Rows are appended and flushed one by one: after a kill all but perhaps the last are there.
    """

    def __init__(self, out: Path, first: int = 0, write: bool = True, tensorboard: bool = False):
        self.rows, self._said, self._file, self._board = [], set(), None, None
        path = out / "metrics.jsonl"
        if first and path.exists():
            self.rows = [row for row in read_rows(path) if row["step"] <= first]
        if not write:
            return
        write_text(path, "".join(json.dumps(row) + "\n" for row in self.rows))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        if tensorboard:
            self._board = _summary_writer(out / "tensorboard", first)

    def add(self, row: dict) -> None:
        self.rows.append(row)
        if self._file:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        if self._board:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, row["step"])

    def warn(self, sentence: str) -> None:
        """Says a sentence once in a run."""
        if self._file and sentence not in self._said:
            self._said.add(sentence)
            warnings.warn(sentence, stacklevel=3)

    def close(self) -> None:
        for stream in filter(None, (self._file, self._board)):
            stream.close()


def read_rows(path: Path) -> list[dict]:
    """The rows of a ``metrics.jsonl``; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # the line that was being written when the run was killed
            break
    return rows


def _summary_writer(folder: Path, first: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard=True needs the package tensorboard: pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder), purge_step=first)
