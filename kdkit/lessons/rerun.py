"""Trainings and studies in the cells of a notebook: stopped, run again, also in another kernel.

The run folder alone decides what a cell does that is run again, so that a restarted kernel changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from kdkit.common.errors import KdkitError, OtherRunError
from kdkit.lessons.experiments import FINDING, Experiment, Finding, run_experiment
from kdkit.training import identity
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig


class StoppedTraining(KdkitError):
    """A training or a study was stopped before its end, and saved. A notebook shows the message without a traceback."""

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


def study_in_cell(
    experiments: Sequence[Experiment],
    seeds: Sequence[int],
    out: Path,
    jobs: int | None = 1,
    resume: bool = True,
) -> list[Finding]:
    """:func:`kdkit.lessons.experiments.run_experiment` of one or several experiments, for a cell that may be run again.

    Trainings in ``out`` that are finished with the same settings are taken from there, which is printed, and one that
    was stopped goes on. Where settings, or functions that the notebook defines, have changed, and without ``resume``,
    they start anew.

    Raises :class:`StoppedTraining` after Ctrl-C or an interrupt of the kernel.
    """
    name, out = Path(out).name, Path(out)
    tasks = [(one, case, seed) for one in experiments for seed in seeds for case in one.cases()]
    asked = [(out / one.folder(case, seed) / FINDING, one.identity(case, seed)) for one, case, seed in tasks]

    def finished() -> int:
        return sum(identity.kept(path, of) is not None for path, of in asked)

    if resume and (earlier := finished()):
        print(
            f"{name}: {earlier} of {len(tasks)} trainings were finished earlier with the same settings and are loaded "
            "(resume=False trains them anew)"
        )
    try:
        found = [run_experiment(one, seeds, out, resume, jobs, replace_others=True) for one in experiments]
    except KeyboardInterrupt as error:
        last = f"; the one at work {error}" if str(error) else ""
        raise StoppedTraining(
            f"{name}: stopped, {finished()} of {len(tasks)} trainings are finished and kept{last}. Run the cell again "
            "to go on."
        ) from None
    return [finding for findings in found for finding in findings]
