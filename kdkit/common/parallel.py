"""Parallel work: one function on many tasks in processes, and threads that prefetch without slowing the main thread.

Processes, because decoding holds Python's global lock and small trainings gain little from a second thread.
"""

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

from kdkit.common.errors import ConfigError, KdkitError
from kdkit.common.progress import tqdm

Task, Answer = TypeVar("Task"), TypeVar("Answer")


# Environment of child processes: keeps Python from importing a joblib.py or pickle.py of the current folder. (Python
# 3.10 ignores it.)
ISOLATED = {"PYTHONSAFEPATH": "1"}


@contextmanager
def _isolated_children() -> Iterator[None]:
    """Within, processes that joblib starts are isolated too: they inherit the environment."""
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
    """The number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def each(
    function: Callable[[Task], Answer], tasks: Sequence[Task], jobs: int | None = None, ordered: bool = True
) -> Iterator[Answer]:
    """Yields ``function(task)`` for all tasks, in their order or (``ordered=False``) as they finish.

    ``jobs`` processes of one thread each (None: one per core); with one job or one task the function runs in this
    process. The processes need no ``__main__`` guard, are reused by the next call, and end with this process.
    Exceptions of the function are raised here. Raises :class:`KdkitError` when a process was killed.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs must be 1 or more, not {jobs}")
    jobs = min(jobs or cores(), len(tasks))
    if jobs <= 1:
        yield from map(function, tasks)
        return
    # loky warns when it replaces a process whose memory has grown (mapped files count), which is harmless
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
    """In a process of :func:`each`: exits when the parent process has ended, even by a kill."""
    parent = psutil.Process().parent()

    def watch() -> None:
        if parent is not None:
            parent.wait()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def each_training(
    function: Callable[[Task], Answer], tasks: Sequence[Task], jobs: int | None, title: str
) -> list[Answer]:
    """:func:`each` for trainings. In several processes, one bar counts them in place of their own progress bars, and
    only their warnings are passed on.
    """
    if min(jobs or cores(), len(tasks)) <= 1:
        return [function(task) for task in tasks]
    answers = {}
    # smoothing=0: trainings take very different times, so the estimate is the mean of all
    with tqdm(total=len(tasks), desc=title, unit="training", smoothing=0) as bar:
        numbered = list(enumerate(tasks))
        for number, answer, said in each(partial(_quiet, function), numbered, jobs, ordered=False):
            for sentence in said:
                warnings.warn(sentence, stacklevel=2)
            answers[number] = answer
            bar.update()
    return [answers[number] for number in range(len(tasks))]


def _quiet(function: Callable[[Task], Answer], numbered: tuple[int, Task]) -> tuple[int, Answer, list[str]]:
    """The task's number, the function's result, and its warnings."""
    number, task = numbered
    nowhere = io.StringIO()
    with redirect_stdout(nowhere), redirect_stderr(nowhere), warnings.catch_warnings(record=True) as caught:
        answer = function(task)
    return number, answer, [str(warning.message) for warning in caught]


def compute_on_one_core() -> None:
    """``initializer`` of a ThreadPoolExecutor whose threads work beside the main thread: limits OpenMP to one thread.

    Every thread that runs parallel torch operations gets its own team of OpenMP threads. With more of them than cores,
    libgomp puts idle threads to sleep at once instead of spinning, in all teams: on 2 cores a training step with small
    operations then takes up to 1.7 times as long.
    """
    import torch

    torch.get_num_threads()  # initialises torch's threads, which would undo the next line
    threadpool_limits(1, user_api="openmp")  # of this thread only
