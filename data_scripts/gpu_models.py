"""Makes the models, and measures the lessons' claims, on version 2 of the synthetic corpus: for a GPU.

    sh data_scripts/gpu_models.sh                                                 # ten processes share a GPU
    python data_scripts/gpu_models.py --out runs/gpu-models --jobs 10 --limit 13  # the same without MPS
    python data_scripts/gpu_models.py --out runs/gpu-models --table               # what was found so far
    python data_scripts/gpu_models.py --out runs/gpu-trial --trial                # see it work, on two cores

What it makes (:mod:`gpu_tasks`), the most important first: speech; a teacher that hears 1,000 hours; students of the
waveform and of Fbank, shallow & wide and deep & thin; recognisers of all of them, and of the same structures from
scratch, on 1, 10 and 60 minutes with three seeds; studies of losses, structures, adaptation and front-ends over a
64-fold range of distillation. --share 0.5 halves all trainings.

Nothing begins that would not end before --limit; the same command goes on where this one stopped. On another machine it
needs OUT/made, some 60 MB, and makes the speech again. A task that fails leaves its log in OUT/work/logs and stops only
what needs it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import asdict
from pathlib import Path

import gpu_tasks
import torch
from gpu_tasks import BOTH, CONTRASTS, TRIAL, Scale, Task, slug
from joblib.externals.loky import ProcessPoolExecutor

from kdkit.common.errors import ConfigError
from kdkit.common.files import write_text
from kdkit.common.parallel import ISOLATED, cores
from kdkit.lessons.experiments import Finding, budgets_in, compare, names_in, summary

# ------------------------------------------------------------------------------------------------------------ running


def perform(task: Task, log: Path) -> float:
    """Makes a task's file, and says in a log what happens; the seconds it took. Runs in a process of its own."""
    log.parent.mkdir(parents=True, exist_ok=True)
    task.path.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with (
        open(log, "w", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            task.make()
        except Exception as error:
            traceback.print_exc()
            if "CUDA error" in str(error):  # nothing will work in this process any more
                file.flush()
                os._exit(1)
            raise
        finally:
            gc.collect()
            torch.cuda.empty_cache()
    return time.perf_counter() - began


class Crew:
    """Processes that make tasks: ``jobs`` slots' worth at a time, nothing that would end after ``limit`` seconds."""

    def __init__(self, tasks: list[Task], scale: Scale, jobs: int, limit: float, only: list[str] = ()):
        self.tasks = {task.name: task for task in tasks}
        self.left = left_to_do(self.tasks, scale.made, only)
        self.logs, self.jobs, self.limit = scale.work / "logs", jobs, limit
        self.began = time.perf_counter()
        self.running: dict[Future, tuple[Task, float]] = {}
        self.tries: Counter[str] = Counter()
        self.failed: set[str] = set()
        self.pace: dict[str, float] = {}  # kind: seconds that its tasks take over those expected
        self.pool: ProcessPoolExecutor | None = None

    @property
    def now(self) -> float:
        return time.perf_counter() - self.began

    def work(self) -> set[str]:
        """Makes what can be made in time; returns the names of tasks that failed."""
        # loky replaces a process whose memory has grown, and says it as if something were wrong
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        try:
            while True:
                self.start_what_fits()
                if not self.running or self.now > self.limit:
                    return self.failed
                for future in wait(self.running, timeout=1, return_when=FIRST_COMPLETED).done:
                    self.end(future)
        finally:
            self.dismiss()

    def dismiss(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True, kill_workers=bool(self.running))
        self.pool = None

    def start_what_fits(self) -> None:
        if self.pool is None and not self.running:
            threads = str(max(1, cores() // self.jobs))
            self.pool = ProcessPoolExecutor(self.jobs, env={**ISOLATED, "OMP_NUM_THREADS": threads})
        busy = sum(task.slots for task, _ in self.running.values())
        for task in map(self.tasks.get, list(self.left)):
            ends = self.now + task.seconds * self.pace.get(task.kind, 1.0)
            ready = all(self.tasks[need].path.exists() for need in task.needs)
            if ready and ends < self.limit and (busy == 0 or busy + task.slots <= self.jobs) and self.pool:
                busy += task.slots
                self.left.remove(task.name)
                self.tries[task.name] += 1
                self.running[self.pool.submit(perform, task, self.log_of(task))] = task, self.now

    def log_of(self, task: Task) -> Path:
        return self.logs / f"{slug(task.name)}.log"

    def end(self, future: Future) -> None:
        task, began = self.running.pop(future)
        try:
            future.result()
        except BrokenExecutor:  # a process was killed, and all others with it
            self.dismiss()
            if self.tries[task.name] < 3:
                self.left.insert(0, task.name)
                return
            self.fail(task, "its process was killed three times; is there enough memory for so many --jobs?")
        except Exception as error:
            self.fail(task, str(error).strip().splitlines()[-1] if str(error).strip() else repr(error))
        else:
            seconds = self.now - began
            print(f"{self.now:6.0f} s  {task.name}: {seconds:.0f} s", flush=True)
            pace = seconds / max(1.0, task.seconds)
            self.pace[task.kind] = (2 * self.pace.get(task.kind, pace) + pace) / 3

    def fail(self, task: Task, why: str) -> None:
        self.failed.add(task.name)
        print(f"{self.now:6.0f} s  {task.name} failed: {why}; its log: {self.log_of(task)}", flush=True)


def left_to_do(tasks: dict[str, Task], made: Path, only: list[str] = ()) -> list[str]:
    """Names of tasks, in their order: those for OUT/made that have something of ``only`` in their names, and what they
    need.
    """
    found: set[str] = set()

    def need(name: str) -> None:
        if name not in found and not tasks[name].path.exists():
            found.add(name)
            for other in tasks[name].needs:
                need(other)

    for name, task in tasks.items():
        if task.path.is_relative_to(made) and (not only or any(part in name for part in only)):
            need(name)
    return [name for name in tasks if name in found]


# -------------------------------------------------------------------------------------------------------------- table


def found_in(folder: Path) -> list[dict]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def finding(row: dict) -> Finding:
    return Finding(**row | {name: tuple(row[name]) for name in ("counts", "totals")})


def table(made: Path) -> str:
    """Everything that was found, as lines of plain text."""
    lines = []
    if (made / "teacher_phones.json").exists():
        probe = json.loads((made / "teacher_phones.json").read_text(encoding="utf-8"))
        gain = f"{100 * probe['gain_over_fbank']:+.1f} points over Fbank"
        lines.append(f"teacher: phones are best in H{probe['best_layer']}, {gain}")
    by_steps: dict[tuple[float, int], list[dict]] = {}
    for row in found_in(made / "recognisers"):
        by_steps.setdefault((row["test-clean"]["minutes"], row["test-clean"]["steps"]), []).append(row)
    for (minutes, steps), rows in sorted(by_steps.items()):
        lines += [
            "",
            f"{minutes:g} labelled minutes, {steps} steps: WER on test-clean, on test-other; against scratch",
        ]
        clean, other = ([finding(row[split]) for row in rows] for split in ("test-clean", "test-other"))
        for name in sorted(names_in(clean)):
            line = f"{name:34s} {summary(clean, name)}  {summary(other, name)}"
            system, start = name.split(", ")
            with contextlib.suppress(ConfigError):  # not from scratch yet
                if start != "scratch":
                    line += f"  {compare(clean, name, f'{system.removesuffix(BOTH)}, scratch')}"
            lines.append(line)
    by_budget: dict[int, list[dict]] = {}
    for row in found_in(made / "studies"):
        by_budget.setdefault(row["budget"], []).append(row)
    for budget, rows in sorted(by_budget.items()):
        phones = [finding(row["phones"]) for row in rows]
        tuned = [finding(own["test-clean"]) for row in rows for own in row["recognisers"]]
        deeper = [(name, "waveform") for name in names_in(phones) if name.startswith("waveform, ")]
        lines += ["", f"studies, {budget}x"]
        for name, baseline in (*CONTRASTS, *deeper):
            for findings, minutes in ((phones, None), *((tuned, minutes) for minutes in budgets_in(tuned))):
                with contextlib.suppress(ConfigError):  # one of them is not there yet
                    change, on = (
                        compare(findings, name, baseline, minutes),
                        f" on {minutes:g} min" if minutes else "",
                    )
                    lines.append(f"{name} against {baseline}{on}: {change.verdict}, {change}")
    return "\n".join(lines) or f"{made}: nothing yet"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-models"))
    parser.add_argument("--jobs", type=int, default=max(1, min(10, cores())), help="trainings at a time")
    parser.add_argument(
        "--limit", type=float, default=float("inf"), help="minutes; nothing begins that would end later"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the steps of every training")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PART",
        help="tasks whose names contain this, and what they need",
    )
    parser.add_argument(
        "--trial", action="store_true", help="a minute of speech and a few steps of everything"
    )
    parser.add_argument("--list", action="store_true", help="only say what is left to do")
    parser.add_argument("--table", action="store_true", help="only show what was found")
    args = parser.parse_args()
    scale = Scale(args.out.absolute(), share=args.share)
    if args.trial:
        scale = Scale(args.out.absolute(), **TRIAL)
    if args.table:
        print(table(scale.made))
        return
    check_folder(parser, scale)
    crew = Crew(gpu_tasks.tasks(scale), scale, args.jobs, 60 * args.limit, args.only)
    if args.list:
        print("\n".join(crew.left))
        return
    failed = crew.work()
    print(f"\n{table(scale.made)}\n")
    print(f"{len(left_to_do(crew.tasks, scale.made, args.only))} tasks are left; made: {scale.made}")
    raise SystemExit(1 if failed else 0)


def check_folder(parser: argparse.ArgumentParser, scale: Scale) -> None:
    """A folder belongs to one scale: students do not say in their names how long they were trained."""
    own = {name: value for name, value in asdict(scale).items() if name != "out"}
    kept = scale.made / "scale.json"
    if not kept.exists():
        scale.made.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(own) + "\n")
    elif json.loads(kept.read_text(encoding="utf-8")) != json.loads(json.dumps(own)):
        parser.error(f"{scale.made} was made at another --share, or as a trial: choose another folder")


if __name__ == "__main__":
    main()
