"""Training dashboard (notebooks 02 to 04): curves of a training as it runs, stop and resume, earlier runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from html import escape
from itertools import cycle
from pathlib import Path

import ipywidgets
import numpy as np
from greenlet import getcurrent, greenlet
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdkit.lessons import plots
from kdkit.lessons.widgets import drawing
from kdkit.lessons.widgets.panel import ON_PAPER, Panel, button, slider
from kdkit.training.loop import train
from kdkit.training.run_log import read_rows

_EVERY = 1.0  # seconds between two pictures of a running training


class StoppedTraining(Exception):
    """A training ended before its last step because somebody wanted it; what was trained is saved."""


class TrainingDashboard(Panel):
    """Runs trainings and shows them.

        board = TrainingDashboard(("loss", "dev loss"))
        board.show()
        log = await board.train("student", task, batches, recipe, folder)

    :meth:`train` takes what :func:`kdkit.training.loop.train` takes and returns the same log. The training takes
    turns with the kernel's event loop, so that clicks arrive (in ipykernel 7; elsewhere the notebook's own stop button
    does the same). *Stop* ends the step, saves, and raises :class:`StoppedTraining` in the cell; *Resume* goes
    on from there in the background, and so does running the cell again.

    ``earlier``: {name: run folder or log}, drawn dotted. A run that starts again keeps its last curve that way.
    """

    title = "Training dashboard"

    def __init__(
        self,
        keys: Sequence[str] = ("loss",),
        labels: Mapping[str, str] | None = None,
        earlier: Mapping[str, Path | str | list[dict]] | None = None,
    ):
        self.keys, self.labels = tuple(keys), dict(labels or {})
        self.logs: dict[str, list[dict]] = {}
        self.earlier = {name: _log(run) for name, run in (earlier or {}).items()}
        self.status, self.stopped = "nothing has run yet", set()
        self._stop, self._thread, self._drawn, self._handle = threading.Event(), None, 0.0, None
        self._last: tuple | None = None  # name and arguments of the training that runs or was stopped
        super().__init__(
            smooth=slider("mean over", 1, 1, 20),
            logarithmic=ipywidgets.Checkbox(value=False, description="logarithmic"),
            compare=ipywidgets.Checkbox(value=True, description="earlier runs"),
        )
        self._buttons = (
            button("Stop", self.stop, "Ends the step, saves, and stops."),
            button("Resume", self.resume, "Goes on where it was stopped."),
        )
        self._enable()

    # --- running ----------------------------------------------------------------------------------------------

    async def train(
        self, name: str, task, batches, config, out: Path, evaluate=None, resume: bool = True, **more
    ) -> list[dict]:
        """Trains, and shows it; returns the log. A run that was stopped here goes on, even without ``resume``."""
        resume = resume or name in self.stopped
        before = Path(out) / "metrics.jsonl"
        if not resume and before.is_file():
            self.earlier[f"{name}, before"] = read_rows(before)
        self._last = name, (task, batches, config, out, evaluate), more
        return await _in_turns(partial(self._run, resume))

    def _run(self, resume: bool) -> list[dict]:
        name, arguments, more = self._last
        config, began = arguments[2], time.perf_counter()
        self._stop.clear()
        self.status, first = f"{name} is starting", None

        def watch(rows: list[dict]) -> bool:
            nonlocal first
            self.logs[name] = list(rows)
            step = rows[-1]["step"]
            first = (step, time.perf_counter()) if first is None else first
            done, spent = step - first[0], time.perf_counter() - first[1]
            left = f", {spent / done * (config.steps - step):.0f} s left" if done else ""
            speed = rows[-1].get("times_real_time")
            pace = f", {speed:.0f} x real time" if speed else ""
            self.status = f"{name}: step {step} of {config.steps}{left}{pace}"
            if time.perf_counter() - self._drawn > _EVERY:
                self._drawn = time.perf_counter()
                self.redraw()
            _turn()
            return self._stop.is_set()

        self._running = True
        self._enable()
        try:
            self.logs[name] = train(*arguments, resume=resume, title=name, watch=watch, **more)
            self.stopped.discard(name)
            self.status = f"{name}: done, {config.steps} steps; {time.perf_counter() - began:.0f} s"
        except KeyboardInterrupt:
            self.stopped.add(name)
            step = self.logs[name][-1]["step"] if self.logs.get(name) else 0
            self.status = f"{name}: stopped after step {step}, saved; Resume, or run the cell again, to go on"
            raise StoppedTraining(self.status) from None  # a KeyboardInterrupt would end the event loop
        except BaseException as error:
            self.status = f"{name}: {type(error).__name__}: {error}"
            raise
        finally:
            self._running = False
            self._enable()
            self.redraw()
            if self._handle is not None:
                self._handle.update(self)  # the still picture is that of the end
        return self.logs[name]

    def stop(self) -> None:
        """Asks the running training to stop after its next logged step."""
        if self.running:
            self._stop.set()
            self.status = "stopping after the next logged step"
            self._tell()

    def resume(self) -> None:
        """Goes on with the training that was stopped, in the background; :meth:`wait` waits for it."""
        if self._last is None or self._last[0] not in self.stopped or self.running:
            return

        def go_on() -> None:
            with suppress(StoppedTraining):  # again: the status says so
                self._run(resume=True)

        self._thread = threading.Thread(target=go_on, daemon=True)
        self._running = True
        self._thread.start()

    def wait(self) -> None:
        """Waits for a training that was resumed."""
        if self._thread is not None:
            self._thread.join()

    _running = False

    @property
    def running(self) -> bool:
        return self._running

    # --- what is shown ----------------------------------------------------------------------------------------

    def show(self) -> None:
        """Puts the dashboard under the cell."""
        from IPython.display import display

        self._handle = display(self, display_id=True)

    def extra(self) -> list:
        return list(self._buttons)

    def _enable(self) -> None:
        stop, resume = self._buttons
        stop.disabled = not self.running
        resume.disabled = self.running or self._last is None or self._last[0] not in self.stopped

    def idle(self) -> set[str]:
        nothing = not self.logs and not self.earlier
        return {"smooth", "logarithmic", "compare"} if nothing else set() if self.earlier else {"compare"}

    def _tell(self) -> None:
        if self._box is not None:
            self._words.value = f"<div style='{ON_PAPER}'>{self.words()}</div>"

    def curve(self, rows: list[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a key, a running mean over as many logged steps as the slider says."""
        points = [(row["step"], row[key]) for row in rows if key in row]
        if not points:
            return np.empty(0), np.empty(0)
        steps, values = map(np.array, zip(*points, strict=True))
        width = min(self.state["smooth"], len(values))
        sums = np.cumsum(np.concatenate([[0.0], values]))
        first = np.maximum(0, np.arange(1, len(values) + 1) - width)
        last = np.arange(1, len(values) + 1)
        return steps, (sums[last] - sums[first]) / (last - first)

    def layout(self) -> Figure:
        figure = plots.Picture(figsize=(11.5, 3.6))
        grid = figure.add_gridspec(
            1, len(self.keys), left=0.085, right=0.985, top=0.9, bottom=0.16, wspace=0.25
        )
        for place, key in zip(grid, self.keys, strict=True):
            axes = figure.add_subplot(place, xlabel="step", ylabel=self.labels.get(key, key))
            axes.grid(alpha=0.3)
            drawing.place_labels(axes, 48)
        return figure

    def draw(self, *axes: Axes) -> None:
        runs = [(name, rows, "-") for name, rows in self.logs.items()]
        if self.state["compare"]:
            runs += [(name, rows, ":") for name, rows in self.earlier.items()]
        last = max((row["step"] for _, rows, _ in runs for row in rows), default=0)
        if self._last:
            last = max(last, self._last[1][2].steps)  # of the training that runs: the axis does not move
        for panel, key in zip(axes, self.keys, strict=True):
            panel.set_xlim(0, 1.02 * last or 1)
            panel.set_yscale("log" if self.state["logarithmic"] and runs else "linear")
            if panel.get_yscale() == "log":
                panel.yaxis.set_major_locator(MaxNLocator(6))  # round numbers: losses rarely span a decade
                panel.yaxis.set_major_formatter("{x:g}")
                panel.yaxis.set_minor_formatter("")
            for colour, (name, rows, line) in zip(cycle(plots.CYCLE), runs):
                steps, values = self.curve(rows, key)
                mark = "o" if 0 < len(steps) < 20 else None
                panel.plot(steps, values, line, color=colour, label=name, marker=mark, markersize=4)
            if runs:
                panel.legend(fontsize=8)
            else:
                panel.text(0.5, 0.5, "nothing has run yet", ha="center", transform=panel.transAxes)

    def words(self) -> str:
        return f"<b>{escape(self.status)}</b>"

    def alt(self) -> str:
        ends = []
        for name, rows in self.logs.items():
            _, values = self.curve(rows, self.keys[0])
            if len(values):
                ends.append(f"{name}: {self.labels.get(self.keys[0], self.keys[0])} {values[-1]:.3f}")
        return f"Training dashboard: {self.status}. " + "; ".join(ends)


async def _in_turns(function: Callable[[], list[dict]]) -> list[dict]:
    """Calls ``function`` in this thread; whenever it says :func:`_turn`, the event loop has a moment for its messages.

    A second thread would work, but would bring its own OpenMP threads, beside those of this one.
    """
    running = greenlet(function)
    result = running.switch()
    while not running.dead:
        await asyncio.sleep(0.002)
        result = running.switch()
    return result


def _turn() -> None:
    """Lets the event loop have its turn; does nothing in a function that was not started by :func:`_in_turns`."""
    if (waiting := getcurrent().parent) is not None:
        waiting.switch()


def _log(run: Path | str | list[dict]) -> list[dict]:
    return run if isinstance(run, list) else read_rows(Path(run) / "metrics.jsonl")
