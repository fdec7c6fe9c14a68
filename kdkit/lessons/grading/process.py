"""A worker as the judge's side sees it: started, asked with a time limit, ended."""

from __future__ import annotations

import importlib.util
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from kdkit.common.errors import KdkitError
from kdkit.lessons.exercises.checking import Wrong
from kdkit.lessons.grading import wire

ASKED = 50_000  # characters that an answer may send to one of the functions that it was given
STARTS = 120.0  # seconds that starting may take: torch is read from disk
KEPT = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "LANG", "LC_ALL")
HERE = Path(__file__).resolve().parent


class Stopped(Wrong):
    """The learner's code did not come to a value."""


class Raised(Stopped):
    """It raised an error; the text is the worker's, and may be anything."""


class Ended(Stopped):
    """The process is gone, or writes what is no message; the text says so."""


class TooLong(Stopped):
    """The time of an exercise is used up."""


@dataclass(frozen=True)
class Limits:
    """``seconds``: of an exercise, all cases together; ``memory``: bytes on top of an empty process."""

    seconds: float = 30.0
    memory: int = 1 << 30


@dataclass(eq=False)
class Worker:
    """One process, in a throw-away folder. ``hidden``: paths that its code must not see."""

    hidden: Sequence[Path] = ()
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="kdkit-grade-", ignore_cleanup_errors=True)
        work = Path(self.folder.name).resolve()
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUTF8": "1"}
        environment |= {
            name: str(work) for name in ("HOME", "TMPDIR", "TEMP", "TMP", "USERPROFILE", "MPLCONFIGDIR")
        }
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=work,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal is the judge's alone
        )
        self.lines: queue.Queue[bytes] = queue.Queue(4)  # who writes unasked has to wait
        self.late = self.large = self.ended = False
        self.used = float("inf")  # bytes of memory, until it is ready
        self.deadline = time.monotonic() + STARTS
        self.threads = [threading.Thread(target=does, daemon=True) for does in (self._listen, self._watch)]
        for thread in self.threads:
            thread.start()
        path = [str(Path(place).resolve()) for place in sys.path if place]
        needed = {
            str(Path(place).resolve()) for place in (sys.prefix, sys.base_prefix, *self._libraries(path))
        }
        told = {"work": str(work), "code": str(HERE), "path": path, "needed": sorted(needed)}
        self._write(told | {"hidden": [str(place) for place in self.hidden], "memory": self.limits.memory})
        try:
            self.holds: dict[str, bool] = self._read()["holds"]
            self.used = psutil.Process(self.process.pid).memory_info().rss
            self.rest()
        except (Ended, TooLong, KeyError, psutil.Error) as error:
            self.close()
            raise KdkitError(
                f"the process for learners' code does not start: {error or 'no answer'}"
            ) from error

    def _libraries(self, path: list[str]) -> list[str]:
        """Where the packages of answers lie."""
        homes = [
            Path(importlib.util.find_spec(name).origin).resolve().parents[1] for name in ("numpy", "torch")
        ]
        return [*(place for place in path if Path(place).name.endswith("-packages")), *map(str, homes)]

    def begin(self) -> None:
        """A new exercise: its time starts."""
        self.deadline = time.monotonic() + self.limits.seconds

    def rest(self) -> None:
        """Between two exercises no time is counted."""
        self.deadline = float("inf")

    def prepare(self, parts: list[tuple[str, str]], given: dict[str, object], name: str) -> object:
        """Runs the statements; returns the value of ``name``. Raises one of the :class:`Stopped`, as :meth:`call`."""
        self.functions: list[Callable] = []  # those that the answer may call, by number
        values = {key: wire.dump(value, self._number) for key, value in given.items()}
        return self._ask({"do": "prepare", "parts": parts, "given": values, "name": name})[0]

    def call(self, name: str, arguments: Sequence[object]) -> tuple[object, list[object]]:
        """What the function ``name`` returns, and its arguments afterwards."""
        written = [wire.dump(argument, self._number) for argument in arguments]
        return self._ask({"do": "call", "name": name, "arguments": written})

    def _number(self, function: Callable) -> int:
        self.functions.append(function)
        return len(self.functions) - 1

    def _ask(self, request: dict) -> tuple[object, list[object]]:
        self._write(request)
        while True:
            reply = self._read()
            try:
                if "ask" in reply:
                    self._serve(reply)
                elif "raised" in reply:
                    raise Raised(str(reply["raised"])[:2000])
                else:
                    return wire.load(reply["result"]), [wire.load(value) for value in reply.get("after", [])]
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise Ended("it writes what is no answer") from error

    def _serve(self, reply: dict) -> None:
        """Calls one of the functions that the answer was given: here, so with little only."""
        if len(repr(reply)) > ASKED:
            raise Ended("it sends more to a function of the kit than any answer needs")
        function, arguments = self.functions[reply["ask"]], [wire.load(value) for value in reply["arguments"]]
        try:
            self._write({"result": wire.dump(function(*arguments))})
        except (Ended, TooLong):
            raise
        except Exception as error:  # of arguments that do not fit
            self._write({"raised": f"{type(error).__name__}: {error}"})

    def _write(self, message: dict) -> None:
        try:
            self.process.stdin.write(wire.line(message))
            self.process.stdin.flush()
        except OSError:
            raise self._why() from None

    def _read(self) -> dict:
        line = self.lines.get()
        if not line:
            raise self._why()
        try:
            return wire.message(line)
        except ValueError as error:
            raise Ended("it writes what is no message") from error

    def _why(self) -> Exception:
        """Why the process is gone."""
        if self.late:
            return TooLong()
        if self.large:
            return Ended(f"it takes more than {self.limits.memory >> 20} MB of memory")
        return Ended("it ends its process (os._exit, or a crash within a library)")

    def _listen(self) -> None:
        with suppress(OSError, ValueError):
            while line := self.process.stdout.readline(wire.LONGEST):
                self.lines.put(line)
        self.lines.put(b"")

    def _watch(self) -> None:
        """Ends the process when its time or memory is used up, whatever it is doing."""
        while self.process.poll() is None:
            with suppress(psutil.Error):
                held = psutil.Process(self.process.pid).memory_info().rss
                self.large = held > self.used + 1.5 * self.limits.memory
            self.late = time.monotonic() > self.deadline
            if self.late or self.large:
                self.end()
                return
            time.sleep(0.1)

    @property
    def gone(self) -> bool:
        """Whether the process has ended, or is about to."""
        return self.ended or self.process.poll() is not None

    def end(self) -> None:
        """Kills the process and whatever it started."""
        self.ended = True
        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    child.kill()
        self.process.kill()

    def close(self) -> None:
        """Ends the process and removes its folder."""
        self.end()
        self.process.wait()
        patience = time.monotonic() + 5  # a child that could not be ended may hold the pipe
        while any(thread.is_alive() for thread in self.threads) and time.monotonic() < patience:
            with suppress(queue.Empty):
                self.lines.get(timeout=0.02)
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe.close()
        self.folder.cleanup()
