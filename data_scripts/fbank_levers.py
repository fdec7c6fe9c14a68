"""How much of the teacher reaches an Fbank student, lever by lever: WER after fine-tuning on 10 minutes of four voices.

    python data_scripts/fbank_levers.py --list                          # the levers, and why each is there
    python data_scripts/fbank_levers.py --out runs/levers               # all of them; stop and run again at will
    python data_scripts/fbank_levers.py --out runs/levers --only fbank "fbank, slow front-end" --seeds 0 1
    python data_scripts/fbank_levers.py --out runs/levers --table       # what is there by now

Labels of many voices leave distillation little to do: with four, what a student knows of voices comes from the teacher.
A student is distilled once for all levers that differ in fine-tuning only. ``--jobs`` processes share the trainings, on
the cores or on one GPU; whatever ends is kept at once, so a run that is cut off loses what was not finished only. The
result is the table, and OUT/study_fbank_levers.json, made of all that is in OUT.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock

from kdkit.commands.running import run
from kdkit.common.errors import ConfigError
from kdkit.common.files import write_text
from kdkit.common.machine import best_device, training_precision
from kdkit.common.parallel import each_training
from kdkit.distill import Adaptation, DistillConfig, DistillTask, default_pairs, swap_losses
from kdkit.fbank import fit_statistics
from kdkit.lessons.experiments import compare, kept_findings, run_experiment, save_findings, summary
from kdkit.lessons.trials import FineTunings
from kdkit.model.speech_model import SpeechModel, preset
from kdkit.probing import phone_probe
from kdkit.recognition.finetune import FineTuneConfig, augmented_fbank, from_scratch
from kdkit.speech.augment import AUGMENTED
from kdkit.speech.batches import Batches
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.manifest import Utterance, few_voices
from kdkit.students import load_student, new_student, swap_front_end
from kdkit.teachers import Teacher, load_teacher, save_model
from kdkit.teachers.targets import TargetCache
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig

MINUTES, VOICES, OF_MINUTES = 10, 4, 300  # labelled speech: so much, of so many voices, chosen from so much
BATCH_SECONDS = 16  # of fine-tuning


@dataclass(frozen=True)
class Lever:
    """One way to a recogniser. ``road`` of the student: "shipped", "teacher" (distilled from the teacher), "swap" (from
    the shipped waveform student, whose front-end is replaced), "scratch" (not at all).

    ``front``: settings of the Fbank front-end; ``steps``, of which ``adapt`` of front-end adaptation to ``targets``,
    ``lr``, ``augment`` and ``distil_rate`` (of the front-end, after adaptation) of distillation; ``rate`` (of the
    front-end), ``warp`` and ``spec_augment`` of fine-tuning.
    """

    why: str
    road: str = "shipped"
    system: str = "tiny-sw-fbank"
    front: dict = field(default_factory=dict)
    steps: int = 2000
    adapt: int = 500
    lr: float = 1e-3
    augment: bool = False
    targets: str = "h0"
    distil_rate: float = 1.0
    rate: float = 1.0
    warp: float = 0.0
    spec_augment: bool = False

    def student(self, seed: int) -> str:
        """Name of the file of its student: levers that differ in fine-tuning only share one."""
        parts = [self.road, self.system, self.front, self.steps, self.adapt, self.lr, self.augment]
        parts += [self.targets, self.distil_rate, seed]
        return f"{self.road}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]}"

    @property
    def made(self) -> bool:
        """Is a student distilled for it?"""
        return self.road in ("teacher", "swap")


# the paper's front-end
PLAIN = {"normalisation": "corpus", "bins": 80, "fbank_channels": 0, "fbank_floor": 0.0}
STRAIGHT = {"road": "teacher", "front": PLAIN, "steps": 4000, "adapt": 0, "lr": 2e-3, "augment": True}
CONVS = {"fbank_channels": 160}  # the width of the shallow & wide student
SHORT = {"steps": 601, "adapt": 600, "lr": 2e-3}
UTTERANCE = {"normalisation": "utterance"}
FEW = UTTERANCE | {"bins": 40}
DEEP = FEW | CONVS
BEST = DEEP | {"fbank_floor": 50.0}

LEVERS: dict[str, Lever] = {
    "waveform": Lever("the twin that Fbank is measured against", system="tiny-sw-waveform"),
    "waveform, frozen front-end": Lever("the twin with its CNN as it was", system="tiny-sw-waveform", rate=0),
    "waveform, slow front-end": Lever("the twin at a tenth of the rate", system="tiny-sw-waveform", rate=0.1),
    "waveform, scratch": Lever("what the teacher gives the twin", "scratch", "tiny-sw-waveform"),
    "fbank": Lever("the baseline: distilled from the teacher", **STRAIGHT),
    "fbank, scratch": Lever("what the teacher gives the baseline", "scratch", front=PLAIN),
    "fbank, frozen front-end": Lever("Adam overwrites its small weights: they stay", **STRAIGHT, rate=0),
    "fbank, slow front-end": Lever("a tenth as far, in proportion as the CNN's do", **STRAIGHT, rate=0.1),
    "fbank, front-end at 0.3": Lever("they move three tenths as far", **STRAIGHT, rate=0.3),
    "fbank, warped": Lever("four voices sound like many", **STRAIGHT, warp=0.15),
    "fbank, slow and warped": Lever("both", **STRAIGHT, rate=0.1, warp=0.15),
    "fbank, slow and masked": Lever(
        "SpecAugment: no bin alone names a phone", **STRAIGHT, rate=0.1, spec_augment=True
    ),
    "shipped": Lever("the student that ships with the kit: swap, best, of half the channels"),
    "shipped, scratch": Lever("what the teacher gives it", "scratch"),
    "swap": Lever("from the waveform student, not from the teacher", "swap"),
    "swap, deep": Lever("two convolutions", "swap", front=CONVS),
    "swap, deep, slow": Lever("and a slow front-end", "swap", front=CONVS, rate=0.1),
    "adapted only": Lever("600 steps of adaptation, nothing else", "swap", front=CONVS, **SHORT),
    "adapted only, slow": Lever("and a slow front-end", "swap", front=CONVS, rate=0.1, **SHORT),
    "adapted longer, slow": Lever(
        "seven times as much adaptation", "swap", front=CONVS, rate=0.1, steps=4001, adapt=4000, lr=2e-3
    ),
    "swap, deep, at 0.3": Lever("three tenths", "swap", front=CONVS, rate=0.3),
    "swap, utterance, deep, slow": Lever("80 bins", "swap", front=UTTERANCE | CONVS, rate=0.1),
    "swap, utterance": Lever("level and colour of every utterance taken out", "swap", front=UTTERANCE),
    "swap, mean": Lever("the mean of every utterance taken out", "swap", front={"normalisation": "mean"}),
    "swap, LayerNorm": Lever("as the waveform CNN has one", "swap", front=UTTERANCE | {"fbank_norm": True}),
    "swap, 24 bins": Lever("no harmonics of the voice", "swap", front=UTTERANCE | {"bins": 24}),
    "swap, 40 bins": Lever("hardly any harmonics of the voice", "swap", front=FEW),
    "swap, 40 bins, floor": Lever("silences are equally deep", "swap", front=FEW | {"fbank_floor": 50.0}),
    "swap, 40 bins, deep": Lever("two convolutions", "swap", front=DEEP),
    "swap, 40 bins, wide": Lever(
        "one convolution that sees 145 ms, not 65", "swap", front=FEW | {"fbank_kernel": 13}
    ),
    "swap, 40 bins, to the CNN": Lever("adapted to its output", "swap", front=FEW, targets="front-end"),
    "swap, 40 bins, to both": Lever("and to H0", "swap", front=FEW, targets="both"),
    "swap, 40 bins, distilled slow": Lever(
        "a slow front-end after adaptation", "swap", front=FEW, distil_rate=0.1
    ),
    "swap, 40 bins, slow": Lever("a slow front-end in fine-tuning", "swap", front=FEW, rate=0.1),
    "swap, 40 bins, long": Lever("four times as long", "swap", front=FEW, steps=8000, adapt=1000),
    "swap, best": Lever("bins, floor, depth", "swap", front=BEST),
    "swap, best, slow": Lever("and a slow front-end", "swap", front=BEST, rate=0.1),
    "swap, best, long": Lever("four times as long", "swap", front=BEST, steps=8000, adapt=1000),
    "swap, best, long, slow": Lever("both", "swap", front=BEST, steps=8000, adapt=1000, rate=0.1),
    "teacher, best": Lever("the same from the teacher", "teacher", front=BEST, lr=2e-3, augment=True),
}


@dataclass(frozen=True)
class Setting:
    """What all levers share."""

    out: Path
    steps: int  # of fine-tuning
    speech_minutes: float
    batch_seconds: float
    frames: int  # of the phone probe; 0: none


def labelled() -> tuple[list[Utterance], list[Utterance]]:
    """Ten minutes of four voices, evenly spread over the sorted names of the speakers; and test speech."""
    corpus = build_synthetic(minutes={"train": OF_MINUTES, "test-clean": 10}, progress=False)
    return few_voices(corpus["train"], VOICES, MINUTES), corpus["test-clean"]


def distil(setting: Setting, lever: Lever, seed: int) -> None:
    """Makes the student of a lever and seed, unless it is there: OUT/students/<name>.safetensors."""
    path = setting.out / "students" / f"{lever.student(seed)}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # another process may be making it for another lever
        if not path.exists():
            make_student(setting, lever, seed, path)


def make_student(setting: Setting, lever: Lever, seed: int, path: Path) -> None:
    speech = build_synthetic(minutes={"unlabelled": setting.speech_minutes}, progress=False)["unlabelled"]
    if lever.road == "swap":
        old = load_student("tiny-sw-waveform")[0]
        teacher = Teacher(old, None, "tiny-sw-waveform")
        student, losses = (
            swap_front_end(old, seed, **PLAIN | lever.front),
            swap_losses(old.config, lever.adapt, lever.targets),
        )
    else:
        teacher = load_teacher()
        student = new_student(replace(preset(lever.system), **lever.front), teacher.model, seed)
        pairs = default_pairs(student.config, teacher.config)
        losses = DistillConfig(
            pairs, adaptation=Adaptation(lever.adapt, targets=lever.targets) if lever.adapt else None
        )
    losses = replace(
        losses, augmenting=AUGMENTED if lever.augment else None, front_end_rate=lever.distil_rate
    )
    fit_statistics(student, speech)
    task_of = DistillTask(student, teacher, losses)
    targets = None
    if not torch.cuda.is_available():  # a GPU makes them faster than a disk reads them
        layers = {0, 1, 2} if lever.road == "swap" else task_of.layers | {0}
        targets = TargetCache(teacher, sorted(layers), speech).build(progress=False)
    batches = Batches(speech, setting.batch_seconds, seed, cache=True, targets=targets)
    recipe = TrainConfig(
        lever.steps, lever.lr, stages=(lever.adapt,) if lever.adapt else (), seed=seed, log_every=25
    )
    began = time.perf_counter()
    log = train(task_of, batches, recipe, path.with_suffix(""), title=path.stem)
    tail = [row["regression"] for row in log if "regression" in row][-10:]
    facts = {"regression_loss": sum(tail) / len(tail), "seconds": round(time.perf_counter() - began)}
    save_model(path, student, {"lever": asdict(lever), "seed": seed} | facts)


def tune(setting: Setting, task: tuple[str, Lever, int]) -> None:
    """Fine-tunes a lever with a seed, scores it, and keeps that in OUT/tuned. Its student is made first."""
    name, lever, seed = task
    if lever.made:
        distil(setting, lever, seed)
    speech, test = labelled()
    settings = FineTuneConfig(batch_seconds=BATCH_SECONDS, speeds=(0.9, 1.0, 1.1), front_end_rate=lever.rate)
    recipe = TrainConfig(
        setting.steps, 1e-3, warmup=0.1, hold=0.3, schedule="tri-stage", weight_decay=0.01, log_every=200
    )

    def start(speech: list[Utterance], seed: int) -> SpeechModel:
        model = begin(setting, lever, speech, seed)
        return augmented_fbank(model, lever.spec_augment, lever.warp)

    experiment = FineTunings({name: start}, {float(MINUTES): speech}, test, recipe, settings)
    run_experiment(experiment, (seed,), setting.out / "tuned")
    path = setting.out / "probes" / f"{lever.student(seed) if lever.made else lever.system}.json"
    if setting.frames and lever.road != "scratch" and not path.exists():
        model = begin(setting, lever, speech, seed)
        probe = phone_probe(model, speech, test, setting.frames, setting.frames, last_only=True)
        write_text(path, json.dumps(probe.to_dict()) + "\n")


def begin(setting: Setting, lever: Lever, speech: list[Utterance], seed: int) -> SpeechModel:
    """The model that fine-tuning starts from."""
    if lever.road == "scratch":
        return from_scratch(new_student(replace(preset(lever.system), **lever.front)), speech, seed)
    if lever.road == "shipped":
        return load_student(lever.system)[0]
    return load_student(setting.out / "students" / f"{lever.student(seed)}.safetensors")[0]


def table(out: Path, levers: dict[str, Lever], baseline: str = "fbank") -> str:
    """A line for every lever: WER with its interval and seeds, difference from the baseline, probe, loss."""
    findings = kept_findings(out / "tuned")
    there = [name for name in levers if any(finding.name == name for finding in findings)]
    lines = []
    for name in there:
        found = summary(findings, name)
        line = f"{name:28s} WER {found}; each seed {found.each_seed}"
        if baseline in there and name != baseline:
            with suppress(ConfigError):  # no seed in common
                line += f"  {compare(findings, name, baseline)}"
        lines.append(line + known(out, levers[name], list(found.seeds)))
    return "\n".join(lines) or f"{out}: nothing yet"


def keep(out: Path, speech_minutes: float) -> None:
    """OUT/study_fbank_levers.json: all findings that are in OUT, and what they share."""
    device = best_device()
    precision = training_precision("auto", device)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    shared = {"voices": VOICES, "unlabelled_minutes": speech_minutes, "batch_seconds": BATCH_SECONDS}
    shared["device"] = f"{machine}, {precision}"
    save_findings(out / "study_fbank_levers.json", kept_findings(out / "tuned"), **shared)


def known(out: Path, lever: Lever, seeds: list[int]) -> str:
    """Phone probe (four voices) and regression loss of a lever's first student, where they were measured."""
    said, name = "", lever.student(seeds[0]) if lever.made else lever.system
    probe, student = out / "probes" / f"{name}.json", out / "students" / f"{name}.safetensors"
    if probe.exists() and lever.road != "scratch":
        accuracy = list(json.loads(probe.read_text(encoding="utf-8"))["accuracy"].values())
        said += f"  phones {100 * accuracy[-1]:.1f} %"
    if student.exists():
        said += f"  loss {load_student(student)[1]['regression_loss']:.3f}"
    return said


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/levers"))
    parser.add_argument("--only", nargs="+", choices=LEVERS, default=list(LEVERS), metavar="LEVER")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--steps", type=int, default=6000, help="of fine-tuning, 16 s each")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the steps of distillation: 0.1, a quick look"
    )
    parser.add_argument(
        "--speech-minutes", type=float, default=600, help="unlabelled speech for distillation"
    )
    parser.add_argument("--batch-seconds", type=float, default=32, help="of distillation")
    parser.add_argument("--frames", type=int, default=10_000, help="of the phone probe; 0: none")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--list", action="store_true", help="only say what the levers are")
    parser.add_argument("--table", action="store_true", help="only show what is there")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:28s} {lever.why}" for name, lever in LEVERS.items()))
        return
    levers = {
        name: replace(
            lever, steps=max(2, round(lever.steps * args.share)), adapt=round(lever.adapt * args.share)
        )
        for name, lever in LEVERS.items()
    }
    if not args.table:
        setting = Setting(args.out, args.steps, args.speech_minutes, args.batch_seconds, args.frames)
        labelled()  # the speech is made once, before several processes want it
        first = sorted(args.only, key=lambda name: not levers[name].made)  # those that take longest
        tasks = [(name, levers[name], seed) for seed in args.seeds for name in first]
        each_training(partial(tune, setting), tasks, args.jobs, "fine-tuning")
        keep(args.out, args.speech_minutes)
    print(table(args.out, levers))


if __name__ == "__main__":
    run(main)
