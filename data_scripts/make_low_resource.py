"""The low-resource study that ships with kdkit: WER over minutes of labels, from different starts, at equal steps.

    python data_scripts/make_low_resource.py --out runs/low_resource            # stop it and run it again at will
    python data_scripts/make_low_resource.py --out runs/low_resource --systems tiny-sw-fbank --seeds 0 --minutes 1 10

A student begins from "scratch", "distilled" (regression loss only) or distilled with "both" losses; the teacher
begins "pretrained". Several processes may share the work (--systems, --seeds). OUT/low_resource.json is made of what
is in OUT.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kdkit.lessons.experiments import kept_findings, overview, run_experiment, save_findings
from kdkit.lessons.trials import FineTunings, Start
from kdkit.model.speech_model import preset
from kdkit.recognition.finetune import FineTuneConfig, budgets_of, from_scratch
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.students import load_student, new_student
from kdkit.teachers import load_teacher
from kdkit.training.recipe import TrainConfig


def starts(system: str, students: Path | None) -> dict[str, Start]:
    """The starts of a system, by name."""

    def distilled(name: str) -> Start:
        where = students and students / f"{name.replace('-', '_')}.safetensors"
        return lambda speech, seed: load_student(where if where and where.is_file() else name)[0]

    if system == "teacher":
        return {"teacher pretrained": lambda speech, seed: load_teacher().model}
    return {
        f"{system} scratch": lambda speech, seed: from_scratch(new_student(preset(system)), speech, seed),
        f"{system} distilled": distilled(system),
        f"{system} both": distilled(f"{system}-both"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/low_resource"))
    parser.add_argument("--systems", nargs="+", default=("tiny-sw-fbank", "tiny-sw-waveform", "teacher"))
    parser.add_argument("--minutes", type=float, nargs="+", default=(1, 2, 5, 10, 30))
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-seconds", type=float, default=16)
    parser.add_argument(
        "--students", type=Path, help="folder of distilled students (what is not in it is the shipped one)"
    )
    args = parser.parse_args()
    splits = build_synthetic(minutes={"train": max(args.minutes), "test-clean": 10})
    recipe = TrainConfig(
        steps=args.steps,
        lr=args.lr,
        warmup=0.1,
        hold=0.3,
        schedule="tri-stage",
        weight_decay=0.01,
        log_every=25,
    )
    for system in args.systems:
        experiment = FineTunings(
            starts(system, args.students),
            budgets_of(splits["train"], args.minutes),
            splits["test-clean"],
            recipe,
            FineTuneConfig(batch_seconds=args.batch_seconds),
        )
        run_experiment(experiment, args.seeds, args.out)
    findings = kept_findings(args.out)
    save_findings(args.out / "low_resource.json", findings)
    print(overview(findings))
    print(f"study: {args.out / 'low_resource.json'}")


if __name__ == "__main__":
    main()
