"""The study of losses that ships with kdkit: every variant at equal steps, with several seeds, judged by one probe.

    python data_scripts/make_study.py --out runs/study                          # stop it and run it again at will
    python data_scripts/make_study.py --out runs/study --seeds 0 1 --steps 50   # a quick look

The result is OUT/study.json: the findings of every trial and seed, and the settings.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from kdkit.batches import Batches
from kdkit.corpora.synthetic import build_synthetic
from kdkit.distill import DistillConfig, prediction_heads
from kdkit.fbank import fbank_statistics
from kdkit.files import write_text
from kdkit.models import preset
from kdkit.probing import phone_probe
from kdkit.studies import Trial, contrast, loss_variants, run_study
from kdkit.targets import TargetCache
from kdkit.teachers import load_teacher
from kdkit.training import TrainConfig


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--student", default="tiny-sw-fbank")
    parser.add_argument("--minutes", type=float, default=120, help="minutes of unlabelled synthetic speech")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-seconds", type=float, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument(
        "--frames", type=int, default=10_000, help="frames that the probe is trained and judged on"
    )
    parser.add_argument(
        "--trials", nargs="+", choices=list(loss_variants()), default=list(loss_variants()), metavar="NAME"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2, 3))
    args = parser.parse_args()
    splits = build_synthetic(minutes={"unlabelled": args.minutes, "train": 6, "test-clean": 10})
    speech, teacher, student = splits["unlabelled"], load_teacher(), preset(args.student)
    cache = TargetCache(teacher, range(1, teacher.config.layers + 1), speech)
    print(cache.announcement, flush=True)
    cache.build()
    statistics = fbank_statistics(speech[:500])
    pairs = prediction_heads(student)
    trials = [
        Trial(name, student, DistillConfig(pairs, **more))
        for name, more in loss_variants().items()
        if name in args.trials
    ]
    findings = run_study(
        trials,
        teacher,
        lambda model: phone_probe(
            model, splits["train"], splits["test-clean"], args.frames, args.frames, last_only=True
        ),
        lambda seed: Batches(speech, args.batch_seconds, seed, cache=True, targets=cache),
        TrainConfig(steps=args.steps, lr=args.lr, log_every=25),
        args.seeds,
        args.out / "trials",
        lambda model: model.front_end.set_statistics(*statistics),
    )
    kept = vars(args) | {"out": None, "findings": [asdict(finding) for finding in findings]}
    write_text(args.out / "study.json", json.dumps(kept) + "\n")
    for trial in trials[1:]:
        print(contrast(findings, trial.name, trials[0].name))
    print(f"study: {args.out / 'study.json'}")


if __name__ == "__main__":
    main()
