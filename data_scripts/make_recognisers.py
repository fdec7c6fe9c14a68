"""Fine-tunes teacher and students on labelled minutes and scores them: the table that ships with kdkit.

    python data_scripts/make_recognisers.py --out runs/recognisers                # every system and label budget
    python data_scripts/make_recognisers.py --out runs/recognisers --only teacher --minutes 10 --steps 800
    python data_scripts/make_recognisers.py --out runs/recognisers --only tiny-sw-fbank --starts swapped

"both" is made of a student distilled with both losses. A "swapped" recogniser is that of its waveform twin, same
labels, whose front-end was replaced without any. Every run is kept as
OUT/recogniser_<system>_<start>_<minutes>.safetensors (float16, scores in its header) and skipped when it is there, so
that several processes can share the work. OUT/metrics.json is made of what is in OUT.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from kdkit.commands.running import run
from kdkit.common.files import write_text
from kdkit.distill import DistillTask, swap_losses
from kdkit.fbank import fit_statistics
from kdkit.model.checkpoints import half, load_checkpoint
from kdkit.model.speech_model import parameter_count
from kdkit.recognition.ctc import CTCModel, load_recogniser, save_recogniser
from kdkit.recognition.evaluate import evaluate
from kdkit.recognition.finetune import FineTuneConfig, fine_tune
from kdkit.speech.augment import AUGMENTED
from kdkit.speech.batches import Batches
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.manifest import subset
from kdkit.students import load_student, new_student, swap_front_end
from kdkit.teachers import Teacher, load_model, load_teacher
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig

STARTS = ("first", "both", "scratch", "swapped")
SYSTEMS = ("teacher", "tiny-sw-fbank", "tiny-dt-fbank", "tiny-sw-waveform", "tiny-dt-waveform")


def starting_point(system: str, start: str, args: argparse.Namespace, speech):
    """The model before fine-tuning. "scratch" is the same structure with random weights."""
    if system == "teacher":
        if start == "pretrained":
            return load_model(args.teacher)[0] if args.teacher else load_teacher().model
        return new_student("tiny-teacher", seed=args.seed)
    if start in ("distilled", "both"):
        name = system if start == "distilled" else f"{system}-both"
        return load_student(
            args.students / f"{name.replace('-', '_')}.safetensors" if args.students else name
        )[0]
    model = new_student(system, seed=args.seed)
    fit_statistics(model, speech, len(speech))
    return model


def make_recogniser(system: str, start: str, minutes: float, steps: int, args: argparse.Namespace) -> None:
    name = f"recogniser_{system.replace('-', '_')}_{start}_{minutes:g}"
    path = args.out / f"{name}.safetensors"
    if path.exists():
        return
    corpus = build_synthetic(minutes={"train": max(args.minutes), "test-clean": 10, "test-other": 10})
    speech = subset(corpus["train"], minutes)
    model = starting_point(system, start, args, speech).requires_grad_(True)
    recipe = TrainConfig(
        steps=steps,
        lr=args.lr,
        warmup=0.1,
        hold=0.3,
        schedule="tri-stage",
        weight_decay=0.01,
        seed=args.seed,
        log_every=25,
    )
    config = FineTuneConfig(batch_seconds=args.batch_seconds, speeds=tuple(args.speeds))
    recogniser, facts = fine_tune(model, speech, recipe, args.out / name, config=config, title=name)
    common = {
        "system": system,
        "start": start,
        "minutes": minutes,
        "steps": steps,
        "lr": args.lr,
        "batch_seconds": args.batch_seconds,
        "seed": args.seed,
        "parameters": facts["parameters"],
        "seconds": round(facts["seconds"]),
    }
    if args.speeds:
        common["speeds"] = args.speeds
    evaluate_and_save(path, recogniser, common, corpus)


def swap(system: str, minutes: float, args: argparse.Namespace) -> None:
    """The recogniser of the waveform twin with an Fbank front-end: adapted, then trained jointly, without labels."""
    name = f"recogniser_{system.replace('-', '_')}_swapped_{minutes:g}"
    path = args.out / f"{name}.safetensors"
    twin = args.out / f"{name.replace('fbank', 'waveform').replace('swapped', 'distilled')}.safetensors"
    if path.exists():
        return
    corpus = build_synthetic(minutes={"unlabelled": args.swap_minutes, "test-clean": 10, "test-other": 10})
    old, _ = load_recogniser(twin)
    model = swap_front_end(old.model, args.seed, system)
    fit_statistics(model, corpus["unlabelled"])
    guide = Teacher(old.model.requires_grad_(False).eval(), None, twin.name, {})
    losses = replace(swap_losses(old.model.config, args.swap_steps // 4), augmenting=AUGMENTED)
    recipe = TrainConfig(
        steps=args.swap_steps,
        lr=2e-3,
        stages=(args.swap_steps // 4,),
        weight_decay=0.01,
        seed=args.seed,
        log_every=25,
    )
    batches, began = Batches(corpus["unlabelled"], 32, args.seed, cache=True), time.time()
    train(DistillTask(model, guide, losses), batches, recipe, args.out / name, title=name)
    recogniser = CTCModel(model)
    recogniser.head, recogniser.mask_embedding = old.head, old.mask_embedding
    common = {
        "system": system,
        "start": "swapped",
        "minutes": minutes,
        "steps": args.swap_steps,
        "lr": recipe.lr,
        "batch_seconds": 32,
        "seed": args.seed,
        "parameters": parameter_count(model),
        "seconds": round(time.time() - began),
    }
    evaluate_and_save(path, recogniser, common, corpus)


def evaluate_and_save(path: Path, recogniser: CTCModel, common: dict, corpus: dict) -> None:
    rows = []
    for split in ("test-clean", "test-other"):
        result = evaluate(recogniser, corpus[split]).score
        rows.append(common | {"split": split} | result.to_dict())
        print(f"{path.stem} on {split}: {result}", flush=True)
    save_recogniser(path, recogniser, common | {"metrics": rows}, pack=half)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/recognisers"))
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument(
        "--minutes", type=float, nargs="+", default=(10, 30, 60), help="minutes of labelled speech"
    )
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=("first", "scratch"))
    parser.add_argument("--teacher", type=Path, help="checkpoint (default: the shipped teacher)")
    parser.add_argument(
        "--students", type=Path, help="folder of distilled students (default: the shipped ones)"
    )
    parser.add_argument(
        "--steps", type=int, nargs="+", default=(1300, 2000, 3000), help="for each budget of labels"
    )
    parser.add_argument("--swap-steps", type=int, default=1500)
    parser.add_argument("--swap-minutes", type=float, default=600, help="unlabelled speech to swap with")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument(
        "--speeds", type=float, nargs="*", default=(), help="speed perturbation: factors to draw from"
    )
    parser.add_argument("--batch-seconds", type=float, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for minutes, steps in zip(args.minutes, args.steps, strict=True):
        for system in args.only:
            first = "pretrained" if system == "teacher" else "distilled"
            for start in args.starts:
                if start == "swapped":
                    swap(system, minutes, args)
                    continue
                make_recogniser(system, first if start == "first" else start, minutes, steps, args)
    made = [load_checkpoint(path)[1] for path in args.out.glob("recogniser_*.safetensors")]
    made.sort(key=lambda meta: (SYSTEMS.index(meta["system"]), meta["start"], meta["minutes"]))
    table = args.out / "metrics.json"
    write_text(table, json.dumps([row for meta in made for row in meta["metrics"]], indent=1) + "\n")
    print(f"table: {table}")


if __name__ == "__main__":
    run(main)
