"""Trainings in the cells of a notebook: stopped, run again, also in another kernel.

The run folder alone decides what a cell does that is run again, so that a restarted kernel changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from kdkit.common.errors import KdkitError, OtherRunError
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig


class StoppedTraining(KdkitError):
    """A training was stopped before its last step, and saved. A notebook shows the message without a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [f"{type(self).__name__}: {self}"]


def train_in_cell(
    task: nn.Module,
    batches,
    config: TrainConfig,
    out: Path,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    resume: bool = True,
    title: str = "training",
    watch: Callable[[list[dict]], bool] | None = None,
    **more,
) -> list[dict]:
    """:func:`kdkit.training.loop.train` for a cell that may be run again; returns the log of the whole run.

    With the same settings a run in ``out`` that was stopped goes on, and one that is finished is loaded. With other
    settings, or without ``resume``, it starts anew. What happened is printed.

    Raises :class:`StoppedTraining` after Ctrl-C, an interrupt of the kernel, or when ``watch`` returns True.
    """
    trained = False

    def watched(rows: list[dict]) -> bool:
        nonlocal trained
        trained = True
        return bool(watch and watch(rows))

    def run(resume: bool) -> list[dict]:
        return train(task, batches, config, out, evaluate, resume, title, watch=watched, **more)

    try:
        try:
            log = run(resume)
        except OtherRunError as error:
            print(
                f"{title}: starts anew, since the run before was made of something else ({error.differences})"
            )
            log = run(resume=False)
    except KeyboardInterrupt as error:
        said = str(error) or "stopped before its first step"
        raise StoppedTraining(f"{title}: {said}. Run the cell again to go on.") from None
    if not trained:
        print(f"{title}: trained earlier with the same settings and loaded (resume=False trains it anew)")
    return log
