"""The studies of fine-tuning that ship with kdkit: WER over minutes of labels, and over steps.

    python data_scripts/make_low_resource.py minutes --out runs/low_resource        # stop it and run it again at will
    python data_scripts/make_low_resource.py minutes --out runs/low_resource --systems tiny-sw-fbank --seeds 0
    python data_scripts/make_low_resource.py convergence --out runs/low_resource    # the same starts, longer and longer

"minutes": nested label budgets of many voices at equal steps. "convergence": ten minutes of four voices; every number
of steps is a training of its own, with its own schedule of the learning rate.

A student begins from "scratch", "distilled" (regression loss only) or distilled with "both" losses; the teacher begins
"pretrained". Several processes may share the work (--systems, --starts, --seeds). OUT/low_resource.json or
OUT/convergence.json is made of what is in OUT.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kdkit.commands.running import run
from kdkit.lessons.experiments import kept_findings, overview, run_experiment, save_findings
from kdkit.lessons.trials import FineTunings, Start
from kdkit.recognition.finetune import FineTuneConfig, budgets_of, from_scratch
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.manifest import few_voices
from kdkit.students import load_student, new_student
from kdkit.teachers import load_teacher
from kdkit.training.recipe import TrainConfig

STARTS = ("scratch", "distilled", "both")
OF_MINUTES = 300  # few voices are chosen from so much speech


@dataclass(frozen=True)
class Study:
    """What differs between the two: ``voices`` 0 is all of them."""

    file: str
    voices: int
    minutes: tuple[float, ...]
    steps: tuple[int, ...]
    starts: tuple[str, ...]
    speeds: tuple[float, ...] = ()


STUDIES = {
    "minutes": Study("low_resource.json", 0, (1, 2, 5, 10, 30), (1500,), STARTS),
    "convergence": Study("convergence.json", 4, (10,), (500, 1500, 6000), STARTS[:2], (0.9, 1.0, 1.1)),
}


def starts(system: str, students: Path | None, only: Sequence[str]) -> dict[str, Start]:
    """The starts of a system, by name; of a student, ``only`` these."""

    def distilled(name: str) -> Start:
        where = students and students / f"{name.replace('-', '_')}.safetensors"
        return lambda speech, seed: load_student(where if where and where.is_file() else name)[0]

    if system == "teacher":
        return {"teacher pretrained": lambda speech, seed: load_teacher().model}
    ways = {
        "scratch": partial(from_scratch, new_student(system)),
        "distilled": distilled(system),
        "both": distilled(f"{system}-both"),
    }
    return {f"{system} {start}": ways[start] for start in only}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--out", type=Path, default=Path("runs/low_resource"))
    parser.add_argument("--systems", nargs="+", default=("tiny-sw-fbank", "tiny-sw-waveform", "teacher"))
    parser.add_argument("--starts", nargs="+", choices=STARTS, help="of a student")
    parser.add_argument("--minutes", type=float, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    parser.add_argument("--steps", type=int, nargs="+")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-seconds", type=float, default=16)
    parser.add_argument(
        "--students", type=Path, help="folder of distilled students (what is not in it is the shipped one)"
    )
    args = parser.parse_args()
    study = STUDIES[args.study]
    minutes = args.minutes or study.minutes
    splits = build_synthetic(
        minutes={"train": OF_MINUTES if study.voices else max(minutes), "test-clean": 10}
    )
    if study.voices:
        budgets = {budget: few_voices(splits["train"], study.voices, budget) for budget in minutes}
    else:
        budgets = budgets_of(splits["train"], minutes)
    settings = FineTuneConfig(batch_seconds=args.batch_seconds, speeds=study.speeds)
    out = args.out / args.study
    for seed in args.seeds:
        for steps in args.steps or study.steps:
            recipe = TrainConfig(
                steps, args.lr, warmup=0.1, hold=0.3, schedule="tri-stage", weight_decay=0.01, log_every=25
            )
            for system in args.systems:
                ways = starts(system, args.students, args.starts or study.starts)
                experiment = FineTunings(ways, budgets, splits["test-clean"], recipe, settings)
                run_experiment(experiment, (seed,), out / f"{steps} steps")
    findings = [found for folder in sorted(out.glob("* steps")) for found in kept_findings(folder)]
    findings.sort(key=lambda found: (found.name, found.minutes, found.steps, found.seed))
    save_findings(args.out / study.file, findings)
    print(overview(findings))
    print(f"study: {args.out / study.file}")


if __name__ == "__main__":
    run(main)
