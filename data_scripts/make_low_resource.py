"""The low-resource study that ships with kdkit: WER over minutes of labels, from different starts, at equal steps.

    python data_scripts/make_low_resource.py --out runs/low_resource            # stop it and run it again at will
    python data_scripts/make_low_resource.py --out runs/low_resource --systems tiny-sw-fbank --seeds 0 --minutes 1 10

A student begins from "scratch", "distilled" (regression loss only) or distilled with "both" losses; the teacher
begins "pretrained". Several processes may share the work (--systems, --seeds). OUT/low_resource.json is made of what
is in OUT.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kdkit.corpora.synthetic import build_synthetic
from kdkit.finetuning import FineTuneConfig, budgets_of, from_scratch
from kdkit.lowresource import FineTuned, Way, mean_wer, run_low_resource, save_findings
from kdkit.models import preset
from kdkit.students import load_student, new_student
from kdkit.teachers import load_teacher
from kdkit.training import TrainConfig


def ways(system: str, students: Path | None) -> dict[str, Way]:
    """The starts of a system, by name."""

    def distilled(name: str) -> Way:
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
        run_low_resource(
            ways(system, args.students),
            budgets_of(splits["train"], args.minutes),
            splits["test-clean"],
            recipe,
            args.seeds,
            args.out,
            FineTuneConfig(batch_seconds=args.batch_seconds),
        )
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in args.out.glob("*/*/finding.json")]
    findings = [
        FineTuned(**{name: value for name, value in row.items() if name != "asked"})
        for row in sorted(kept, key=lambda row: (row["way"], row["minutes"], row["seed"]))
    ]
    save_findings(args.out / "low_resource.json", findings)
    for way, minutes in dict.fromkeys((f.way, f.minutes) for f in findings):
        wer, low, high = (100 * share for share in mean_wer(findings, way, minutes))
        each = ", ".join(f"{100 * f.wer:.1f}" for f in findings if (f.way, f.minutes) == (way, minutes))
        print(f"{way:26s} {minutes:4g} min  WER {wer:.1f} % ({low:.1f} to {high:.1f}; each seed {each})")
    print(f"study: {args.out / 'low_resource.json'}")


if __name__ == "__main__":
    main()
