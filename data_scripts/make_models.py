"""Makes every model that the notebooks take as given, from nothing but synthetic speech: hours on 2 cores.

    make report PROFILE=full                                        # this, and then the notebooks with what it made
    python data_scripts/make_models.py --out runs/full-models       # this alone; stop it and run it again at will
    KDKIT_ASSETS=runs/full-models/assets kdkit report --profile full --out runs/full
    python data_scripts/make_models.py --out runs/trial --trial     # see it work: minutes of speech, a few steps
    accelerate launch data_scripts/make_models.py --world librispeech --out runs/paper-models      # world_models.py

The scripts of this folder: the teacher; students distilled from it, and recognisers fine-tuned on 10 and 60 labelled
minutes; beside them, where there are cores (--jobs), the study of front-ends and the teacher's recogniser. The studies
of losses, of structures, and of minutes of labels are left to the notebooks, which make them in profile "full". What
was made is collected in OUT/assets, in the form in which it is shipped; what the scripts say is in OUT/logs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from kdkit.common.errors import KdkitError
from kdkit.common.files import write_atomically
from kdkit.common.parallel import cores
from kdkit.lessons.profiles import get_profile
from kdkit.lessons.world_files import find_world
from kdkit.training.processes import processes

HERE = Path(__file__).parent
STOPPED = "\nstopped; what was done is kept: run it again to go on"


@dataclass(frozen=True)
class Stage:
    """A script with its options; it writes into ``folder``, and ``made`` (patterns) is collected from there."""

    title: str
    script: str
    folder: str
    options: str
    trial: str  # options that make it short
    made: tuple[str, ...]


# What was swapped is in the table, but not collected: it is no start of its own.
FINE_TUNED = (
    *(f"recogniser_*_{start}_*.safetensors" for start in ("pretrained", "distilled", "scratch")),
    "metrics.json",
)
TEACHER = Stage(
    "teacher",
    "make_teacher.py",
    "teacher",
    "",
    "--minutes 5 --warm-up 4 --steps 4 4 --clusters 20",
    ("tiny_teacher.safetensors",),
)
STUDENTS = Stage(
    "students",
    "make_students.py",
    "students",
    "--only tiny-sw-fbank tiny-dt-fbank tiny-sw-waveform tiny-dt-waveform tiny-sw-fbank-both tiny-sw-waveform-both",
    "--minutes 5 --steps 4 --swap-steps 4 --batch-seconds 16",
    ("tiny_*.safetensors",),
)
STUDY = Stage(
    "study of front-ends",
    "make_study.py",
    "studies",
    "front-ends",
    "--minutes 5 --steps 6 --seeds 0 --frames 600",
    ("study_*.json",),
)


def fine_tuned(title: str, options: str, trial: str) -> Stage:
    return Stage(title, "make_recognisers.py", "recognisers", options, trial, FINE_TUNED)


TEACHER_WRITES = fine_tuned(
    "recogniser of the teacher", "--only teacher --starts first --minutes 60 --steps 8000", "--steps 4"
)
FBANK_WRITES = fine_tuned(
    "recognisers with Fbank",
    "--only tiny-sw-fbank --starts first scratch --minutes 10 60 --steps 2000 4000",
    "--steps 4 4",
)
WAVEFORM_WRITES = fine_tuned(
    "recogniser with the CNN", "--only tiny-sw-waveform --starts first --minutes 10 --steps 2000", "--steps 4"
)
SWAPPED = fine_tuned(
    "its front-end swapped",
    "--only tiny-sw-fbank --starts swapped --minutes 10 --steps 0",
    "--swap-steps 8 --swap-minutes 5",
)

# Groups come one after the other; the lanes of a group at the same time, the stages of a lane one after the other.
# The last stage writes the table of all recognisers.
GROUPS = (
    [[TEACHER]],
    [[STUDENTS, FBANK_WRITES, WAVEFORM_WRITES], [TEACHER_WRITES, STUDY]],
    [[SWAPPED]],
)


class Run:
    """Runs scripts and shows what they said last: one changing line on a terminal, a line now and then in a log."""

    def __init__(self, out: Path, trial: bool, threads: int):
        self.out, self.assets, self.trial, self.threads = out, out / "assets", trial, threads
        self.running: dict[str, subprocess.Popen] = {}
        self.said: dict[str, str] = {}
        self.done = threading.Event()
        self.clear = "\r\x1b[2K" if sys.stderr.isatty() else ""  # what stands in the changing line

    def stage(self, stage: Stage) -> None:
        """Raises :class:`RuntimeError` for a script that failed; does nothing when another one has, or Ctrl-C came."""
        if self.done.is_set():
            return
        command = [sys.executable, str(HERE / stage.script), *stage.options.split()]
        command += ["--out", str(self.out / stage.folder), *(stage.trial.split() if self.trial else [])]
        log = self.out / "logs" / f"{stage.title.replace(' ', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        settings = {"KDKIT_ASSETS": str(self.assets), "OMP_NUM_THREADS": str(self.threads)}
        began = time.perf_counter()
        with open(log, "ab") as file:
            process = subprocess.Popen(
                command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            self.running[stage.title], self.said[stage.title] = process, "begins"
            for part in iter(lambda: process.stdout.read1(65536), b""):
                file.write(part)
                lines = [line for line in re.split(r"[\r\n]+", part.decode(errors="replace")) if line.strip()]
                self.said[stage.title] = lines[-1] if lines else self.said[stage.title]
        status = process.wait()
        del self.running[stage.title]
        last = self.said.pop(stage.title)
        if status and not self.done.is_set():
            self.done.set()
            raise RuntimeError(
                f"{stage.title}: {stage.script} ended with status {status} ({last}); its log: {log}"
            )
        if not status:
            self.collect(stage)
            minutes = (time.perf_counter() - began) / 60
            print(f"{self.clear}{stage.title}: {minutes:.1f} minutes", flush=True)

    def collect(self, stage: Stage) -> None:
        for pattern in stage.made:
            for path in sorted((self.out / stage.folder).glob(pattern)):
                write_atomically(self.assets / path.name, lambda new, path=path: shutil.copyfile(path, new))

    def lane(self, stages: list[Stage]) -> None:
        for stage in stages:
            self.stage(stage)

    def watch(self) -> None:
        while not self.done.wait(1.0 if self.clear else 20.0):
            line = " | ".join(f"{title}: {said}" for title, said in list(self.said.items()))
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"{self.clear}{line[:width]}" if self.clear else f"{line}\n")
            sys.stderr.flush()

    def stop(self) -> None:
        """Lets the scripts that run save what they train, as after Ctrl-C."""
        self.done.set()
        for process in list(self.running.values()):
            process.send_signal(signal.SIGINT)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/full-models"))
    jobs = min(2, cores())
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=jobs, help="scripts at the same time")
    parser.add_argument(
        "--trial", action="store_true", help="minutes of speech and a few steps of everything"
    )
    parser.add_argument(
        "--world", default="toy", help="another one: at the sizes of --profile, by accelerate launch"
    )
    parser.add_argument("--profile", default="paper", help="sizes of the models of another world")
    args = parser.parse_args()
    out = args.out.absolute()
    if args.world != "toy":
        from world_models import make

        try:
            make(find_world(args.world), get_profile(args.profile), out)
        except KeyboardInterrupt:
            processes().print(STOPPED)
            raise SystemExit(130) from None
        except KdkitError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        return
    assets, marker = out / "assets", out / "trial"
    if assets.exists() and marker.exists() != args.trial:
        kind = "a trial" if marker.exists() else "the real thing"
        parser.error(f"{out} holds {kind}: choose another folder")
    assets.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        parser.error(f"{out}: models are being made there; wait, or choose another folder")
    if args.trial:
        marker.touch()
    run = Run(out, args.trial, max(1, cores() // args.jobs))
    watcher = threading.Thread(target=run.watch, daemon=True)
    watcher.start()
    try:
        with ThreadPoolExecutor(args.jobs) as pool:
            try:
                for lanes in GROUPS:
                    futures = [pool.submit(run.lane, lane) for lane in lanes]
                    for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                        future.result()
            except RuntimeError:
                run.stop()
                raise
            finally:
                run.done.set()  # from here on nothing begins; what runs is waited for
    except KeyboardInterrupt:  # the scripts heard it, too, and save what they train
        print(STOPPED, file=sys.stderr)
        raise SystemExit(130) from None
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(f"models: {assets}")


if __name__ == "__main__":
    main()
