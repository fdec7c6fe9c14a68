"""Sharing the cores: the same function on many tasks in processes (decoding holds Python's lock, and small trainings
gain next to nothing from a second thread), and threads that read ahead without slowing down the one that computes."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache, partial
from typing import TypeVar

import psutil
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from kdkit.common.errors import ConfigError, KdkitError

Task, Answer = TypeVar("Task"), TypeVar("Answer")


# For processes that this one starts: Python would put the current folder first on their path, and run a joblib.py or
# pickle.py that lies there. (Python 3.10 does not know the switch.)
ISOLATED = {"PYTHONSAFEPATH": "1"}


@contextmanager
def _isolated_children() -> Iterator[None]:
    """Within, processes that a library starts are isolated, too: joblib passes on the environment of this one."""
    before = {name: os.environ.get(name) for name in ISOLATED}
    os.environ.update(ISOLATED)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def each(
    function: Callable[[Task], Answer], tasks: Sequence[Task], jobs: int | None = None, ordered: bool = True
) -> Iterator[Answer]:
    """``function`` of every task as soon as it is there: in the order of the tasks, or in that in which they end.

    ``jobs`` processes of one thread each (None: one for every core); with one, or with one task, nothing is started
    and the function runs here. The processes need no ``__main__`` guard and stay ready for the next call. An exception
    of the function is raised here, and they end with this process. Raises :class:`KdkitError` when one was killed.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs must be 1 or more, not {jobs}")
    jobs = min(jobs or cores(), len(tasks))
    if jobs <= 1:
        yield from map(function, tasks)
        return
    # loky replaces a process whose memory has grown, mapped files included, and says it as if something were wrong
    warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
    try:
        with _isolated_children(), parallel_config(backend="loky", inner_max_num_threads=1):
            share = Parallel(n_jobs=jobs, return_as="generator" if ordered else "generator_unordered")
            yield from share(delayed(_answer)(function, task) for task in tasks)
    except TerminatedWorkerError as error:
        raise KdkitError(
            "a process was killed, most likely for want of memory; try fewer at a time (--jobs 1, or jobs=1)"
        ) from error


def _answer(function: Callable[[Task], Answer], task: Task) -> Answer:
    _end_with_parent()
    return function(task)


@cache
def _end_with_parent() -> None:
    """Once in a process of :func:`each`: when the one that started it was killed, it would go on for nobody."""
    parent = psutil.Process().parent()

    def watch() -> None:
        if parent is not None:
            parent.wait()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def each_training(
    function: Callable[[Task], Answer], tasks: Sequence[Task], jobs: int | None, title: str
) -> list[Answer]:
    """:func:`each` for trainings, which show their own progress: in several processes one bar counts them instead, and
    of what they say only their warnings are passed on.
    """
    if min(jobs or cores(), len(tasks)) <= 1:
        return [function(task) for task in tasks]
    answers = {}
    # smoothing: trainings of a study take very different times, so time left comes from the mean of all
    with tqdm(total=len(tasks), desc=title, unit="training", smoothing=0) as bar:
        numbered = list(enumerate(tasks))
        for number, answer, said in each(partial(_quiet, function), numbered, jobs, ordered=False):
            for sentence in said:
                warnings.warn(sentence, stacklevel=2)
            answers[number] = answer
            bar.update()
    return [answers[number] for number in range(len(tasks))]


def _quiet(function: Callable[[Task], Answer], numbered: tuple[int, Task]) -> tuple[int, Answer, list[str]]:
    """The task's number, the function's answer, and what it warned of."""
    number, task = numbered
    nowhere = io.StringIO()
    with redirect_stdout(nowhere), redirect_stderr(nowhere), warnings.catch_warnings(record=True) as caught:
        answer = function(task)
    return number, answer, [str(warning.message) for warning in caught]


def compute_on_one_core() -> None:
    """First call of a thread that works beside the one that computes (``initializer`` of a ThreadPoolExecutor).

    Every thread that runs a parallel operation of torch gets a team of threads of its own. As soon as there are more
    of them than cores, OpenMP (libgomp) puts idle ones to sleep at once instead of letting them wait a moment, in all
    teams: on 2 cores a training step with small operations then takes up to 1.7 times as long.
    """
    import torch

    torch.get_num_threads()  # torch sets a thread up at its first use, and would undo the next line
    threadpool_limits(1, user_api="openmp")  # of this thread only
