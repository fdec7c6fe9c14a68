"""Cases are tried in processes of their own, one after the other, and judged by what comes of them.

clear    an error of kdkit in one line that names the file
right    the result of the undamaged file, or, where a loader cannot tell, what the file says now
raw      any other exception: a traceback for the user
silent   accepted with another content although it could be told, or a promise broken (a lost text, code that ran)
hang     over the time limit
crash    the process ended (a signal, or out of memory)
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (HERE.parent.parent / "data_scripts", HERE.parent, HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

VERDICTS = ("clear", "right", "raw", "silent", "hang", "crash")
BAD = VERDICTS[2:]
MEMORY = 6 * 2**30  # bytes that a case may take


@dataclass(frozen=True)
class Outcome:
    """How one case ended."""

    entrance: str
    case: str
    seed: int
    verdict: str
    said: str = ""


def try_one(
    entrance: str, seed: int, good: dict[str, tuple[Path, object]], root: Path
) -> tuple[str, str, str]:
    """Name of the case, verdict and what was said; everything in this process."""
    from entrances import OTHERS, entrances

    from kdkit.common.errors import KdkitError

    folder = Path(tempfile.mkdtemp(dir=root))
    before = os.getcwd()
    wanted, names, tells = None, (), ()
    try:
        if entrance in OTHERS:
            name, run = OTHERS[entrance](seed, folder)
        else:
            one = entrances()[entrance]
            if entrance not in good:
                place = Path(tempfile.mkdtemp(dir=root, prefix="good-"))
                made = one.make(place)
                shutil.copytree(made.parent, folder / "first")  # reading may write beside the file
                good[entrance] = made, one.read(folder / "first" / made.name)
            made, wanted = good[entrance]
            name, path = one.attack(seed, made, folder / "case")
            names, tells = (path.name, *one.names), one.tells

            def run():
                return one.read(path)

        os.chdir(folder)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            try:
                found = run()
            except KdkitError as error:
                said = str(error)
                clear = "\n" not in said and len(said) < 2000 and (not names or any(n in said for n in names))
                return name, "clear" if clear else "raw", said
            except AssertionError as error:
                return name, "silent", str(error)
            except (Exception, SystemExit):
                return name, "raw", " | ".join(traceback.format_exc().strip().splitlines()[-3:])
        damage = name.partition(": ")[2]
        if (
            wanted is not None
            and found != wanted
            and any(damage.startswith(beginning) for beginning in tells)
        ):
            return name, "silent", "accepted, with another content"
        return name, "right", ""
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def _serve(pipe, root: Path) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    import torch

    torch.set_num_threads(1)
    good: dict = {}
    while (task := pipe.recv()) is not None:
        pipe.send(("case", try_one(*task, good, root)))


class Judge:
    """A process that tries cases, and a new one after a hang or a crash."""

    def __init__(self, root: Path):
        self.root, self.process = root, None

    def _start(self) -> None:
        self.close()
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, self.root), daemon=True)
        self.process.start()
        other.close()

    def judge(self, entrance: str, seed: int) -> Outcome:
        """Tries one case."""
        from entrances import OTHERS, entrances

        fresh = self.process is None or not self.process.is_alive()
        if fresh:
            self._start()
        limit = 120.0 if entrance in OTHERS else entrances()[entrance].seconds
        self.pipe.send((entrance, seed))
        began = time.monotonic()
        try:
            if not self.pipe.poll(limit + 60 * fresh + 30):  # imports, and the good file, the first time
                self.close()
                return Outcome(entrance, f"seed {seed}", seed, "hang", f"over {limit:.0f} s")
            name, verdict, said = self.pipe.recv()[1]
        except (EOFError, ConnectionError):
            self.process.join(10)
            code, self.process = self.process.exitcode, None
            return Outcome(entrance, f"seed {seed}", seed, "crash", f"exit status {code}")
        if not fresh and time.monotonic() - began > limit + 30:
            verdict, said = "hang", f"{time.monotonic() - began:.0f} s"
        return Outcome(entrance, name, seed, verdict, said)

    def close(self) -> None:
        if self.process is not None and self.process.is_alive():
            self.process.kill()
            self.process.join(10)
        self.process = None
