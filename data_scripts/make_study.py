"""The studies that ship with kdkit: every trial at equal steps, with several seeds, judged by one probe.

    python data_scripts/make_study.py losses --out runs/study             # stop it and run it again at will
    python data_scripts/make_study.py structures --out runs/study --steps 200 800 3200      # does the verdict last?
    python data_scripts/make_study.py front-ends --out runs/study --seeds 0 1 --steps 50    # a quick look

"losses": the ablation of the losses, shallow & wide Fbank student. "structures": deep & thin, shallow & wide and two in
between, at equal budget, waveform front-end. "front-ends": the deep & thin Fbank student with and without front-end
adaptation, whose steps count or come on top, and its waveform twin.

Every number of steps is a training of its own, with its own schedule of the learning rate. Several processes may share
the work (--trials, --steps, --seeds). OUT/study_<name>.json is made of what is in OUT: the findings of every trial,
length and seed, and the settings.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kdkit.commands.running import run
from kdkit.distill import Adaptation, DistillConfig, default_pairs, prediction_heads
from kdkit.fbank import fit_statistics
from kdkit.lessons.experiments import changes_over_steps, kept_findings, run_experiment, save_findings
from kdkit.lessons.trials import Distillations, Trial, loss_variants
from kdkit.model.costs import count_parameters, propose
from kdkit.model.speech_model import ModelConfig, preset
from kdkit.probing import phone_probe
from kdkit.speech.batches import Batches
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.teachers import load_teacher
from kdkit.teachers.targets import TargetCache
from kdkit.training.recipe import TrainConfig


def losses(teacher: ModelConfig, steps: int) -> list[Trial]:
    student = preset("tiny-sw-fbank")
    pairs = prediction_heads(student)
    return [Trial(name, student, DistillConfig(pairs, **more)) for name, more in loss_variants().items()]


def structures(teacher: ModelConfig, steps: int) -> list[Trial]:
    like = preset("tiny-dt-waveform")
    found = propose(count_parameters(like) + 10_000, like, layers=(2, 4, 8, 12))
    trials = [Trial(name, c, DistillConfig(default_pairs(c, teacher))) for name, c in found.items()]
    name, deepest = list(found.items())[-1]
    return [*trials, Trial(f"{name}, prediction heads", deepest, DistillConfig(prediction_heads(deepest)))]


def front_ends(teacher: ModelConfig, steps: int, students: str = "tiny-") -> list[Trial]:
    waveform, fbank = preset(f"{students}dt-waveform"), preset(f"{students}dt-fbank")
    pairs = default_pairs(fbank, teacher)
    trials = [Trial("Fbank, no adaptation", fbank, DistillConfig(pairs))]
    for name, share in (("a sixth", 6), ("a third", 3)):
        losses = DistillConfig(pairs, adaptation=Adaptation(max(1, steps // share)))
        trials.append(Trial(f"Fbank, adaptation for {name} of the steps", fbank, losses))
    trials.append(Trial("Fbank, adaptation for a third on top", fbank, losses, on_top=True))
    return [*trials, Trial("waveform twin", waveform, DistillConfig(pairs))]


STUDIES = {"losses": losses, "structures": structures, "front-ends": front_ends}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--minutes", type=float, default=300, help="minutes of unlabelled synthetic speech")
    parser.add_argument("--steps", type=int, nargs="+", default=(200,), help="lengths of the trainings")
    parser.add_argument("--trials", nargs="+", metavar="NAME", help="only these; default: all of the study")
    parser.add_argument("--batch-seconds", type=float, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument(
        "--frames", type=int, default=10_000, help="frames that the probe is trained and judged on"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2, 3))
    args = parser.parse_args()
    splits = build_synthetic(minutes={"unlabelled": args.minutes, "train": 6, "test-clean": 10})
    speech, teacher = splits["unlabelled"], load_teacher()
    names = [trial.name for trial in STUDIES[args.study](teacher.config, args.steps[0])]
    if unknown := set(args.trials or ()) - set(names):
        parser.error(f"no such trial: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    cache = TargetCache(teacher, range(teacher.config.layers + 1), speech)
    print(cache.announcement, flush=True)
    cache.build()
    kept = args.out / f"trials {args.study}"
    for steps in args.steps:
        trials = STUDIES[args.study](teacher.config, steps)
        study = Distillations(
            [trial for trial in trials if trial.name in (args.trials or names)],
            teacher,
            lambda model: phone_probe(
                model, splits["train"], splits["test-clean"], args.frames, args.frames, last_only=True
            ),
            lambda seed: Batches(speech, args.batch_seconds, seed, cache=True, targets=cache),
            TrainConfig(steps=steps, lr=args.lr, log_every=25),
            lambda student: fit_statistics(student, speech),
        )
        run_experiment(study, args.seeds, kept / f"{steps} steps")
    findings = [found for folder in kept.glob("* steps") for found in kept_findings(folder)]
    findings.sort(key=lambda found: (found.steps, names.index(found.name), found.seed))
    path = args.out / f"study_{args.study.replace('-', '_')}.json"
    settings = {name: getattr(args, name) for name in ("study", "minutes", "batch_seconds", "lr", "frames")}
    save_findings(path, findings, **settings)
    for name, changes in changes_over_steps(findings).items():
        for steps, change in changes.items():
            print(f"{name} against {names[0]}, {steps:,} steps: {change.verdict}, {change}")
    print(f"study: {path}")


if __name__ == "__main__":
    run(main)
