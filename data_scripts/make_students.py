"""Distils the tiny students that ship with kdkit, longer than a lesson can wait.

    python data_scripts/make_students.py --out runs/students                      # all four, one after the other
    python data_scripts/make_students.py --out runs/students --only tiny-sw-fbank --steps 3000

All of them have the same steps, speech and targets, which are computed once and kept in the cache. Stopped runs go on
where they were; finished ones are left alone. The result is OUT/<name>.safetensors in float16.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from kdkit.distill import DistillConfig, DistillTask, default_pairs
from kdkit.fbank import fit_statistics
from kdkit.model.checkpoints import half
from kdkit.model.speech_model import parameter_count
from kdkit.speech.augment import AUGMENTED
from kdkit.speech.batches import Batches
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.students import new_student
from kdkit.teachers import load_teacher, save_model
from kdkit.teachers.targets import TargetCache
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig

STUDENTS = ("tiny-sw-fbank", "tiny-dt-fbank", "tiny-sw-waveform", "tiny-dt-waveform")
BOTH = "-both"  # after a structure: the discriminative loss beside the regression loss


def distil(name: str, args: argparse.Namespace) -> None:
    path = args.out / f"{name.replace('-', '_')}.safetensors"
    if path.exists():
        return
    speech = build_synthetic(minutes={"unlabelled": args.minutes})["unlabelled"]
    teacher = load_teacher(args.teacher)
    structure, both = name.removesuffix(BOTH), name.endswith(BOTH)
    student = new_student(structure, teacher.model, args.seed)
    fit_statistics(student, speech)
    config = DistillConfig(
        default_pairs(student.config, teacher.config),
        discriminative_weight=args.discriminative if both else 0.0,
        augmenting=AUGMENTED,
    )
    task = DistillTask(student, teacher, config)
    deep = any(name.startswith("tiny-dt") for name in args.only)
    layers = range(1, teacher.config.layers + 1) if deep else task.layers  # one cache for all students
    cache = TargetCache(teacher, sorted(layers), speech)
    print(cache.announcement, flush=True)
    batches = Batches(speech, args.batch_seconds, args.seed, cache=True, targets=cache.build())
    recipe = TrainConfig(steps=args.steps, lr=args.lr, seed=args.seed, weight_decay=0.01, log_every=25)
    began = time.time()
    log = train(task, batches, recipe, args.out / name, title=name)
    meta = {
        "preset": structure,
        "teacher": teacher.source,
        "losses": asdict(config),
        "steps": args.steps,
        "batch_seconds": args.batch_seconds,
        "lr": args.lr,
        "seed": args.seed,
        "unlabelled_minutes": args.minutes,
        "parameters": parameter_count(student),
        "seconds": round(time.time() - began),
        "regression_loss": sum(row["regression"] for row in log[-10:]) / len(log[-10:]),
    }
    save_model(path, student, meta, pack=half)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/students"))
    parser.add_argument(
        "--only", nargs="+", choices=[*STUDENTS, *(f"{s}{BOTH}" for s in STUDENTS)], default=STUDENTS
    )
    parser.add_argument("--teacher", default="tiny", help='"tiny" (shipped) or a checkpoint')
    parser.add_argument("--discriminative", type=float, default=1.0, help="weight of that loss in *-both")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=600, help="minutes of unlabelled synthetic speech")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch-seconds", type=float, default=32)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.only:
        distil(name, args)
    print(f"students: {args.out}/*.safetensors")


if __name__ == "__main__":
    main()
