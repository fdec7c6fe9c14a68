"""The study of people that ships with kdkit: WER on the Free Spoken Digit Dataset, a speaker never heard in training.

    python data_scripts/make_digits.py --out runs/digits         # downloads the data; stop it and run it again at will
    python data_scripts/make_digits.py --root FOLDER --speakers theo jackson      # a copy at hand; half of the work
    python data_scripts/make_digits.py --speakers theo --seeds 0 --steps 50                           # a quick look

Four speakers of the dataset, one held out after the other; connected digits as `kdkit prepare fsdd` joins them.
Students with Fbank and with waveform front-end begin from "scratch" or "distilled" on synthetic speech. Recipe: that
of `kdkit finetune tiny-sw-fbank --average 3`, for more steps; dev, other recordings of the speakers trained on,
chooses the weights.

Several processes may share the work (--students, --speakers, --seeds, --minutes). OUT/digits_SPEAKER.json is made of
what is in OUT.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from kdkit.commands.running import run
from kdkit.common.files import cache_folder
from kdkit.lessons.experiments import kept_findings, overview, run_experiment, save_findings
from kdkit.lessons.trials import FineTunings
from kdkit.model.speech_model import preset
from kdkit.recognition.finetune import FineTuneConfig, budgets_of, from_scratch
from kdkit.speech.corpora.fsdd import fsdd, join_digits, split_digits
from kdkit.speech.corpora.prepare import intake, publish
from kdkit.speech.manifest import Utterance, read_manifest
from kdkit.students import load_student, new_student
from kdkit.training.recipe import TrainConfig

SPEAKERS = ("theo", "jackson", "nicolas", "yweweler")
STUDENTS = ("tiny-sw-fbank", "tiny-sw-waveform")


def digit_strings(root: Path, held_out: str, folder: Path) -> dict[str, list[Utterance]]:
    """Train, dev and test of FOLDER, made on first use: connected digits of :data:`SPEAKERS`, ``held_out`` for test."""
    paths = {split: folder / f"strings-{split}.jsonl" for split in ("train", "dev", "test")}
    if not all(path.exists() for path in paths.values()):
        recordings = [found for found in fsdd(root) if found.speaker in SPEAKERS]
        (taken,) = intake({"digits": recordings}).values()
        splits = split_digits(taken.utterances, [held_out])
        strings = {
            f"strings-{split}": join_digits(some, folder / "audio" / split) for split, some in splits.items()
        }
        publish(strings, taken.bad, folder)
    return {split: read_manifest(path) for split, path in paths.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    parser.add_argument(
        "--root",
        type=Path,
        default=cache_folder() / "fsdd",
        help="folder that holds the dataset, or shall hold what is downloaded; default: $KDKIT_CACHE/fsdd",
    )
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=STUDENTS)
    parser.add_argument("--speakers", nargs="+", choices=SPEAKERS, default=SPEAKERS, help="held out, in turn")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    parser.add_argument("--minutes", type=float, nargs="+", default=(10,))
    parser.add_argument("--steps", type=int, default=4000)
    args = parser.parse_args()
    recipe = TrainConfig(steps=args.steps, schedule="tri-stage", warmup=0.1)
    starts = {}
    for student in args.students:
        starts[f"{student} distilled"] = lambda speech, seed, name=student: load_student(name)[0]
        starts[f"{student} scratch"] = partial(from_scratch, new_student(preset(student)))
    for seed in args.seeds:
        for speaker in args.speakers:
            print(f"held out: {speaker}, seed {seed}", flush=True)
            splits = digit_strings(args.root, speaker, args.out / "data" / speaker)
            labels, config = budgets_of(splits["train"], args.minutes), FineTuneConfig(average=3)
            experiment = FineTunings(starts, labels, splits["test"], recipe, config, splits["dev"])
            run_experiment(experiment, [seed], args.out / speaker)
            findings = kept_findings(args.out / speaker)
            save_findings(args.out / f"digits_{speaker}.json", findings)
            print(overview(findings), flush=True)
    print(f"study: {args.out / 'digits_*.json'}")


if __name__ == "__main__":
    run(main)
