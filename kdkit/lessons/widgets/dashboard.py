"""Training dashboard (notebooks 02 to 04): curves of a training as it runs, a button to stop it, earlier runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from itertools import cycle
from pathlib import Path

import ipywidgets
import numpy as np
from greenlet import getcurrent, greenlet
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from kdkit.lessons import plots
from kdkit.lessons.rerun import StoppedTraining, train_in_cell
from kdkit.lessons.widgets import drawing, still
from kdkit.lessons.widgets.panel import Panel, button, slider
from kdkit.training.run_log import read_rows

_EVERY = 1.0  # seconds between two pictures of a running training
_PATIENCE = 3.0  # seconds of training in which a page that is heard while a cell runs has replied
_DEAF = (
    "Here clicks reach the kernel only after the cell. To stop, interrupt the kernel (■ in the notebook's toolbar or "
    "beside the cell): this saves, too."
)


class TrainingDashboard(Panel):
    """Runs trainings and shows them.

        board = TrainingDashboard(("loss", "dev loss"))
        board.show()
        log = await board.train("student", task, batches, recipe, folder)

    :meth:`train` takes what :func:`kdkit.lessons.rerun.train_in_cell` takes and returns the same log. The training
    takes turns with the kernel's event loop, so that clicks can arrive; whether they do depends on kernel and page,
    which is tried, and said. *Stop*, or an interrupt of the kernel, ends the step, saves, and raises
    :class:`StoppedTraining` in the cell, which goes on from there when it is run again.

    ``earlier``: {name: run folder or log}, drawn dotted. A run that starts anew keeps its last curve that way.
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
        self.status, self.running = "nothing has run yet", False
        self._steps, self._began, self._listens, self._drawn = 0, 0.0, 0.0, 0.0
        self._stop, self._heard = threading.Event(), threading.Event()
        super().__init__(
            smooth=slider("mean over", 1, 1, 20),
            logarithmic=_checkbox("logarithmic", False),
            compare=_checkbox("earlier runs", True),
        )
        self._button = button("Stop", self.stop, "Ends the step, saves, and stops.")
        self._button.disabled = True

    # --- running ----------------------------------------------------------------------------------------------

    async def train(
        self, name: str, task, batches, config, out: Path, evaluate=None, resume: bool = True, **more
    ) -> list[dict]:
        """Trains, and shows it; returns the log of the whole run, which may have begun in another kernel.

        Raises :class:`StoppedTraining` when it was stopped.
        """
        arguments = task, batches, config, out, evaluate, resume
        return await _in_turns(partial(self._run, name, arguments, more))

    def _run(self, name: str, arguments: tuple, more: dict) -> list[dict]:
        config, out = arguments[2], Path(arguments[3])
        before = _kept(out)
        first = None  # step and time of the first row that is logged here

        def watch(rows: list[dict]) -> bool:
            nonlocal first
            step, now = rows[-1]["step"], time.perf_counter()
            if first is None:
                first, self._listens = (step, now), now
            if before and before[0] != rows[0]:
                self.earlier[f"{name}, before"] = before
            self.logs[name] = list(rows)
            done = step - first[0]
            left = f", {(now - first[1]) / done * (config.steps - step):.0f} s left" if done else ""
            speed = rows[-1].get("times_real_time")
            pace = f", {speed:.0f} x real time" if speed else ""
            self.status = f"{name}: step {step} of {config.steps}{left}{pace}"
            if now - self._drawn > _EVERY:
                self._drawn = now
                self._ask()
                self.redraw()
                self._button.disabled = self.deaf
            _turn()
            return self._stop.is_set()

        self._begin(name, config.steps)
        try:
            self.logs[name] = train_in_cell(*arguments, title=name, watch=watch, **more)
            took = f"{time.perf_counter() - self._began:.0f} s" if first else "trained earlier, loaded"
            self.status = f"{name}: done, {config.steps} steps; {took}"
        except StoppedTraining as stopped:
            self.logs[name], self.status = _kept(out), str(stopped)
            raise
        except BaseException as error:
            self.status = f"{name}: {type(error).__name__}: {error}"
            raise
        finally:
            self._end()
        return self.logs[name]

    def _begin(self, name: str, steps: int) -> None:
        self.status, self.running, self._steps = f"{name} is starting", True, steps
        self._stop.clear()
        self._heard.clear()
        self._began, self._listens = time.perf_counter(), float("inf")
        self._button.disabled = False
        self._ask()
        self._tell()

    def _end(self) -> None:
        self.running, self._button.disabled = False, True
        self.redraw()
        if self._still is not None:  # the picture that stays is that of the end
            still.renew(self._still, self.box, self.still())

    def stop(self) -> None:
        """Asks the running training to stop after its next logged step."""
        if self.running:
            self._stop.set()
            self.status = "stopping after the next logged step"
            self._tell()

    def _ask(self) -> None:
        """Tries whether messages of the page arrive while the cell runs."""
        if self._box is not None and not self._heard.is_set():
            self.picture.send("heard?")

    @property
    def deaf(self) -> bool:
        """Do clicks wait for the end of the cell? In ipykernel 6, and where a page has no channel beside the cell's."""
        return self.running and time.perf_counter() - self._listens > _PATIENCE and not self._heard.is_set()

    # --- what is shown ----------------------------------------------------------------------------------------

    def show(self) -> None:
        """Puts the dashboard under the cell."""
        display(self)

    def extra(self) -> list:
        self.picture.on_msg(lambda *_: self._heard.set())
        return [self._button]

    def idle(self) -> set[str]:
        nothing = not self.logs and not self.earlier
        return {"smooth", "logarithmic", "compare"} if nothing else set() if self.earlier else {"compare"}

    def _tell(self) -> None:
        if self._box is not None:
            self.say()

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
        if self.narrow:
            figure = self.paper(0, 2.8 * len(self.keys))
            edge = 0.5 / figure.get_figheight()
            grid = figure.add_gridspec(
                len(self.keys), 1, left=0.18, right=0.97, top=1 - edge / 2, bottom=edge, hspace=0.3
            )
        else:
            figure = self.paper(3.6, 0)
            grid = figure.add_gridspec(
                1, len(self.keys), left=0.085, right=0.985, top=0.9, bottom=0.16, wspace=0.25
            )
        for place, key in zip(grid, self.keys, strict=True):
            axes = figure.add_subplot(place, xlabel="step", ylabel=self.labels.get(key, key))
            axes.grid(alpha=0.3)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
            drawing.place_labels(axes, 52)
        return figure

    def draw(self, *axes: Axes) -> None:
        runs = [(name, rows, "-") for name, rows in self.logs.items()]
        if self.state["compare"]:
            runs += [(name, rows, ":") for name, rows in self.earlier.items()]
        last = max((row["step"] for _, rows, _ in runs for row in rows), default=0)
        last = max(last, self._steps)  # of the training that runs: the axis does not move
        for panel, key in zip(axes, self.keys, strict=True):
            panel.set_xlim(0, 1.02 * last or 1)
            panel.set_yscale("log" if self.state["logarithmic"] and runs else "linear")
            for colour, (name, rows, line) in zip(cycle(plots.CYCLE), runs):
                steps, values = self.curve(rows, key)
                mark = "o" if 0 < len(steps) < 20 else None
                panel.plot(steps, values, line, color=colour, label=name, marker=mark, markersize=4)
            if panel.get_yscale() == "log":
                _few_ticks(panel)
            if runs:
                panel.legend(fontsize=8)
            else:
                panel.text(0.5, 0.5, "nothing has run yet", ha="center", transform=panel.transAxes)

    def words(self) -> str:
        return f"<b>{escape(self.status)}</b>" + (f"<br>{_DEAF}" if self.deaf else "")

    def alt(self) -> str:
        ends = []
        for name, rows in self.logs.items():
            _, values = self.curve(rows, self.keys[0])
            if len(values):
                ends.append(f"{name}: {self.labels.get(self.keys[0], self.keys[0])} {values[-1]:.3f}")
        return f"Training dashboard: {self.status}. " + "; ".join(ends)


def _few_ticks(axes: Axes) -> None:
    """Round numbers on a logarithmic axis; within less than half a decade those of a linear one, evenly spaced."""
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(MaxNLocator(6) if high < 3 * low else LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _checkbox(label: str, value: bool) -> ipywidgets.Checkbox:
    layout = ipywidgets.Layout(width="auto", margin="2px 12px")
    return ipywidgets.Checkbox(value=value, description=label, indent=False, layout=layout)


async def _in_turns(function: Callable[[], list[dict]]) -> list[dict]:
    """Calls ``function`` in this thread; whenever it says :func:`_turn`, the event loop has a moment for its messages.

    A second thread would work, but would bring its own OpenMP threads, beside those of this one.
    """
    running = greenlet(function)
    result = running.switch()
    while not running.dead:
        try:
            await asyncio.sleep(0.002)
        except asyncio.CancelledError:  # ipykernel's form of an interrupt that comes while it waits
            result = running.throw(KeyboardInterrupt)
        else:
            result = running.switch()
    return result


def _turn() -> None:
    """Lets the event loop have its turn; does nothing in a function that was not started by :func:`_in_turns`."""
    if (waiting := getcurrent().parent) is not None:
        waiting.switch()


def _kept(folder: Path) -> list[dict]:
    """The log of the training in a folder, if there has been one."""
    return _log(folder) if (folder / "metrics.jsonl").is_file() else []


def _log(run: Path | str | list[dict]) -> list[dict]:
    return run if isinstance(run, list) else read_rows(Path(run) / "metrics.jsonl")
