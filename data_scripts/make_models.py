"""Makes every model that the notebooks take as given, from nothing but synthetic speech: a few hours on 2 cores.

    make report PROFILE=full                                        # this, and then the notebooks with what it made
    python data_scripts/make_models.py --out runs/full-models       # this alone; stop it and run it again at will
    KDKIT_ASSETS=runs/full-models/assets kdkit report --profile full --out runs/full
    python data_scripts/make_models.py --out runs/trial --trial     # see it work: minutes of speech, a few steps

The scripts of this folder one after the other: the teacher, students distilled from it, the study of front-ends,
recognisers fine-tuned on 10 and 60 labelled minutes. The studies of losses, of structures, and of minutes of labels are
left to the notebooks, which make them in profile "full". Each stage keeps its work in a folder of its own under OUT and
begins when the one before it has ended; what they made is collected in OUT/assets, in the form in which it is shipped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from kdkit.files import write_atomically

HERE = Path(__file__).parent
BOTH = ("tiny-sw-fbank-both", "tiny-sw-waveform-both")
STUDENTS = ("tiny-sw-fbank", "tiny-dt-fbank", "tiny-sw-waveform", "tiny-dt-waveform", *BOTH)


@dataclass(frozen=True)
class Stage:
    """A script with its options; it writes into ``folder``, and ``made`` (patterns) is collected from there."""

    title: str
    script: str
    folder: str
    options: str
    trial: str  # options that make it short
    made: tuple[str, ...]


FINE_TUNED = ("recogniser_*.safetensors", "metrics.json")
STAGES = (
    Stage(
        "teacher",
        "make_teacher.py",
        "teacher",
        "",
        "--minutes 5 --warm-up 4 --steps 4 4 --clusters 20",
        ("tiny_teacher.safetensors",),
    ),
    Stage(
        "students",
        "make_students.py",
        "students",
        f"--only {' '.join(STUDENTS)}",
        "--minutes 5 --steps 4 --batch-seconds 16",
        ("tiny_*.safetensors",),
    ),
    Stage(
        "study of front-ends",
        "make_study.py",
        "studies",
        "front-ends",
        "--minutes 5 --steps 6 --seeds 0 --frames 600",
        ("study_*.json",),
    ),
    Stage(
        "recogniser of the teacher",
        "make_recognisers.py",
        "recognisers",
        "--only teacher --starts first --minutes 60 --steps 4000",
        "--steps 4",
        FINE_TUNED,
    ),
    Stage(
        "recognisers of the Fbank student",
        "make_recognisers.py",
        "recognisers",
        "--only tiny-sw-fbank --starts first scratch --minutes 10 60 --steps 2000 4000",
        "--steps 4 4",
        FINE_TUNED,
    ),
    Stage(
        "recogniser of its waveform twin",
        "make_recognisers.py",
        "recognisers",
        "--only tiny-sw-waveform --starts first --minutes 10 --steps 2000",
        "--steps 4",
        FINE_TUNED,
    ),
    Stage(
        "the twin with its front-end swapped",
        "make_recognisers.py",
        "recognisers",
        "--only tiny-sw-fbank --starts swapped --minutes 10 --steps 0",
        "--swap-steps 8",
        FINE_TUNED,
    ),
)


def run(stage: Stage, out: Path, assets: Path, trial: bool) -> None:
    """Raises :class:`SystemExit` with the status of a script that failed."""
    command = [sys.executable, str(HERE / stage.script), *stage.options.split()]
    command += ["--out", str(out / stage.folder), *(stage.trial.split() if trial else [])]
    status = subprocess.run(command, env=os.environ | {"KDKIT_ASSETS": str(assets)}).returncode
    if status:
        print(
            f"{stage.title}: {stage.script} ended with status {status}; run it again to go on",
            file=sys.stderr,
        )
        raise SystemExit(status)
    for pattern in stage.made:
        for path in sorted((out / stage.folder).glob(pattern)):
            write_atomically(
                assets / path.name, lambda temporary, path=path: shutil.copyfile(path, temporary)
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/full-models"))
    parser.add_argument(
        "--trial", action="store_true", help="minutes of speech and a few steps of everything"
    )
    args = parser.parse_args()
    out = args.out.absolute()
    assets, marker = out / "assets", out / "trial"
    if assets.exists() and marker.exists() != args.trial:
        parser.error(
            f"{out} holds {'a trial' if marker.exists() else 'the real thing'}: choose another folder"
        )
    assets.mkdir(parents=True, exist_ok=True)
    if args.trial:
        marker.touch()
    for number, stage in enumerate(STAGES, 1):
        began = time.perf_counter()
        print(f"[{number}/{len(STAGES)}] {stage.title}", flush=True)
        try:
            run(stage, out, assets, args.trial)
        except KeyboardInterrupt:
            print(f"stopped in {stage.title}; what was done is kept: run it again to go on", file=sys.stderr)
            raise SystemExit(130) from None
        print(
            f"[{number}/{len(STAGES)}] {stage.title}: {(time.perf_counter() - began) / 60:.1f} minutes",
            flush=True,
        )
    print(f"models: {assets}")


if __name__ == "__main__":
    main()
