"""Distils the tiny students that ship with kdkit, longer than a lesson can wait.

    python data_scripts/make_students.py --out runs/students                      # all four, one after the other
    python data_scripts/make_students.py --out runs/students --only tiny-sw-waveform --steps 3000
    python data_scripts/make_students.py --out runs/students --only tiny-sw-fbank --shipped-twins

A waveform student is distilled from the teacher. An Fbank student inherits from its waveform twin, whose front-end is
swapped: in the study of levers (data_scripts/fbank_levers.py) that taught it most. Stopped runs go on where they were;
finished ones are left alone. The result is OUT/<name>.safetensors in float16.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path

from kdkit.commands.running import run
from kdkit.distill import DistillConfig, DistillTask, default_pairs, swap_losses
from kdkit.fbank import fit_statistics
from kdkit.model.checkpoints import half
from kdkit.model.speech_model import parameter_count, preset
from kdkit.speech.augment import AUGMENTED
from kdkit.speech.batches import Batches
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.manifest import Utterance
from kdkit.students import load_student, new_student, swap_front_end
from kdkit.teachers import Teacher, load_teacher, save_model
from kdkit.teachers.targets import TargetCache
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig

STUDENTS = ("tiny-sw-fbank", "tiny-dt-fbank", "tiny-sw-waveform", "tiny-dt-waveform")
BOTH = "-both"  # after a structure: the discriminative loss beside the regression loss
SWAP = TrainConfig(steps=2000, lr=1e-3, stages=(500,))  # 500 steps of front-end adaptation
SWAP_SECONDS = 16  # of a batch


def file_of(name: str, folder: Path) -> Path:
    return folder / f"{name.replace('-', '_')}.safetensors"


def distil(name: str, args: argparse.Namespace) -> None:
    """A waveform student, from the teacher."""
    path = file_of(name, args.out)
    if path.exists():
        return
    speech = build_synthetic(minutes={"unlabelled": args.minutes})["unlabelled"]
    teacher = load_teacher(args.teacher)
    structure, both = name.removesuffix(BOTH), name.endswith(BOTH)
    student = new_student(structure, teacher.model, args.seed)
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
    train_and_save(
        path,
        task,
        speech,
        TrainConfig(args.steps, args.lr, weight_decay=0.01),
        args.batch_seconds,
        cache,
        teacher,
        args,
    )


def swap(name: str, args: argparse.Namespace) -> None:
    """An Fbank student, from its waveform twin: the front-end is adapted, then both are trained."""
    path, twin = file_of(name, args.out), name.replace("fbank", "waveform")
    if path.exists():
        return
    speech = build_synthetic(minutes={"unlabelled": args.minutes})["unlabelled"]
    if not args.shipped_twins:
        distil(twin, args)
    old, _ = load_student(twin if args.shipped_twins else file_of(twin, args.out))
    teacher, structure = Teacher(old, None, twin), preset(name.removesuffix(BOTH))
    student = swap_front_end(old, args.seed, structure)
    fit_statistics(student, speech)
    task = DistillTask(student, teacher, swap_losses(old.config, args.swap_steps // 4))
    cache = TargetCache(teacher, range(old.config.layers + 1), speech)
    recipe = replace(SWAP, steps=args.swap_steps, stages=(args.swap_steps // 4,))
    train_and_save(path, task, speech, recipe, SWAP_SECONDS, cache, teacher, args)


def train_and_save(
    path: Path,
    task: DistillTask,
    speech: list[Utterance],
    recipe: TrainConfig,
    batch_seconds: float,
    cache: TargetCache,
    teacher: Teacher,
    args: argparse.Namespace,
) -> None:
    print(cache.announcement, flush=True)
    batches = Batches(speech, batch_seconds, args.seed, cache=True, targets=cache.build())
    recipe = replace(recipe, seed=args.seed, log_every=25)
    began = time.time()
    log = train(task, batches, recipe, path.with_suffix(""), title=path.stem)
    meta = {
        "teacher": teacher.source,
        "losses": asdict(task.config),
        "steps": recipe.steps,
        "batch_seconds": batch_seconds,
        "lr": recipe.lr,
        "seed": args.seed,
        "unlabelled_minutes": args.minutes,
        "parameters": parameter_count(task.student),
        "seconds": round(time.time() - began),
        "regression_loss": sum(row["regression"] for row in log[-10:]) / len(log[-10:]),
    }
    save_model(path, task.student, meta, pack=half)


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
    parser.add_argument("--swap-steps", type=int, default=SWAP.steps, help="of a front-end swap")
    parser.add_argument("--shipped-twins", action="store_true", help="swap the shipped waveform students")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.only:
        (swap if "fbank" in name else distil)(name, args)
    print(f"students: {args.out}/*.safetensors")


if __name__ == "__main__":
    run(main)
