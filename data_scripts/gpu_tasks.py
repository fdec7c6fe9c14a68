"""What :mod:`gpu_models` makes on version 2 of the synthetic corpus: speech, teacher, students, recognisers, studies.

A task makes one file, from files of others. Every function here may run in a process of its own.
"""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import make_teacher
import numpy as np
import torch

from kdkit.common.files import write_text
from kdkit.distill import Adaptation, DistillConfig, DistillTask, default_pairs, prediction_heads, swap_losses
from kdkit.fbank import fit_statistics
from kdkit.lessons.experiments import PHONES, Finding
from kdkit.model.checkpoints import half
from kdkit.model.costs import count_parameters, propose
from kdkit.model.speech_model import ModelConfig, SpeechModel, parameter_count, preset, tiny_fbank
from kdkit.probing import phone_probe
from kdkit.recognition.ctc import CTCModel, save_recogniser
from kdkit.recognition.evaluate import evaluate
from kdkit.recognition.finetune import FineTuneConfig, fine_tune, from_scratch
from kdkit.speech.augment import AUGMENTED
from kdkit.speech.batches import Batches
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.manifest import Utterance
from kdkit.students import load_student, new_student, swap_front_end
from kdkit.teachers import Teacher, load_teacher, save_model
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig

VERSION = 2  # of the synthetic corpus


@dataclass(frozen=True)
class Scale:
    """How much of everything: ``share`` of the steps of every training; speech in minutes."""

    out: Path
    share: float = 1.0
    first: float = 1440  # unlabelled, for the teacher's first iteration and the studies
    unlabelled: float = 4800
    labelled: tuple[float, ...] = (1, 10, 60)
    test: float = 10  # of each test set
    dev: float = 3
    seeds: tuple[int, ...] = (0, 1, 2)
    width: int = 192  # of the teacher
    clusters: tuple[int, int] = (100, 200)
    teacher_batches: tuple[float, float] = (160, 600)  # seconds, in the two iterations
    budgets: dict[int, int] = field(default_factory=lambda: {1: 4, 4: 4, 16: 2, 64: 2})  # of studies: seeds
    frames: int = 10_000  # of a phone probe

    def steps(self, number: float) -> int:
        return max(3, round(number * self.share))

    @property
    def hours(self) -> list[int]:
        """Hours heard after which the teacher's weights are kept: what does more speech give?"""
        return [round(hours * self.share) for hours in (50, 200, 500) if hours * self.share >= 1]

    @property
    def first_teacher(self) -> Path:
        """What the first iteration of pre-training comes to."""
        return self.work / "teacher" / "first.safetensors"

    @property
    def made(self) -> Path:
        return self.out / "made"

    @property
    def work(self) -> Path:
        return self.out / "work"


TRIAL = {
    "share": 0.0, "first": 1, "unlabelled": 1.2, "labelled": (10,), "test": 0.2, "dev": 0.2, "seeds": (0,), "width": 64,
    "clusters": (8, 8), "teacher_batches": (16, 16), "budgets": {1: 1}, "frames": 300,
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Makes ``path`` by ``make()``, after the tasks in ``needs``. ``seconds``: what it may take beside others on a GPU,
    where it takes the place of ``slots`` of them. Tasks of a ``kind`` are faster or slower than that together.
    """

    name: str
    kind: str
    path: Path
    make: Callable[[], None]
    needs: tuple[str, ...] = ()
    seconds: float = 10
    slots: int = 1


def slug(name: str) -> str:
    """A task's name as that of a file."""
    return name.replace(", ", "_").replace(": ", "_").replace(" ", "-")


# ------------------------------------------------------------------------------------------------------------- speech


@functools.lru_cache(None)
def speech(split: str, minutes: float) -> list[Utterance]:
    return build_synthetic(minutes={split: minutes}, progress=False, version=VERSION)[split]


def make_speech(scale: Scale, path: Path, minutes: float) -> None:
    splits = {"train": max(scale.labelled) + 2, "dev": scale.dev + 2}
    splits |= {"test-clean": scale.test, "test-other": scale.test, "unlabelled": minutes}
    build_synthetic(minutes=splits, progress=False, version=VERSION)
    write_text(path, f"{minutes:g} minutes\n")


def samples(path: Path) -> torch.Tensor:
    """A wav file of the corpus, whose header has 44 bytes, much faster than by a reader that expects anything."""
    return torch.from_numpy(np.fromfile(path, "<i2", offset=44).astype(np.float32) / 32768)


# ------------------------------------------------------------------------------------------------------------ teacher

TEACHER = "tiny_teacher.safetensors"


def pretrain_first(scale: Scale, path: Path) -> None:
    """The CNN becomes a filterbank, then the targets are k-means of MFCCs."""
    pretrain(
        scale, path,
        f"""--warm-up {scale.steps(600)} --steps {scale.steps(2400)} --minutes {scale.first}
        --batch-seconds {scale.teacher_batches[0]} --clusters {scale.clusters[0]}
        --visible-weight 1 --mask 0.5 --span 5 --noise 0""",
    )  # fmt: skip


def pretrain_second(scale: Scale, path: Path) -> None:
    """The targets are k-means of the layer of the first iteration that knows phones best."""
    pretrain(
        scale, path,
        f"""--start {scale.first_teacher} --steps {scale.steps(5400)} --minutes {scale.unlabelled}
        --batch-seconds {scale.teacher_batches[1]} --clusters {scale.clusters[1]}
        --layer {make_teacher.BEST} --frames {scale.frames // 2}
        --visible-weight 0.1 --mask 0.65 --span 10 --noise 0.25""",
    )  # fmt: skip


def pretrain(scale: Scale, path: Path, options: str) -> None:
    options += f" --corpus-version {VERSION} --width {scale.width} --lr 2e-3 --out {scale.work / 'teacher'}"
    options += f" --keep-hours {' '.join(map(str, scale.hours))}"
    make_teacher.make(make_teacher.options().parse_args(shlex.split(options))).replace(path)


def the_teacher(scale: Scale) -> Teacher:
    return load_teacher(str(scale.made / TEACHER))


def probe_teacher(scale: Scale, path: Path) -> None:
    """Phones in every layer, and in Fbank."""
    voices = speech("train", max(scale.labelled)), speech("test-clean", scale.test)
    probe = phone_probe(the_teacher(scale).model, *voices, scale.frames, scale.frames)
    write_text(path, json.dumps(probe.to_dict()) + "\n")


# ----------------------------------------------------------------------------------------------------------- students

BOTH = "-both"  # after a structure's name: distilled with both losses
STUDENTS = (
    "tiny-sw-waveform", "tiny-dt-waveform", f"tiny-sw-waveform{BOTH}",
    "tiny-sw-fbank", "tiny-dt-fbank", f"tiny-sw-fbank{BOTH}",
)  # fmt: skip


@functools.lru_cache(None)
def structures(width: int) -> dict[str, ModelConfig]:
    """The structure of a teacher so wide, and those of students with about equally many parameters."""
    teacher = replace(preset("tiny-teacher"), dim=width, ffn=4 * width, heads=width // 32)
    wide = replace(teacher, layers=2)
    (thin,) = propose(count_parameters(wide), wide, layers=(12,)).values()
    return {
        "teacher": teacher,
        "tiny-sw-waveform": wide,
        "tiny-sw-fbank": tiny_fbank(wide),
        "tiny-dt-waveform": thin,
        "tiny-dt-fbank": tiny_fbank(thin),
    }


def student_path(scale: Scale, name: str) -> Path:
    return scale.made / f"{name.replace('-', '_')}.safetensors"


def make_student(scale: Scale, path: Path, name: str) -> None:
    """Distils a waveform student from the teacher, an Fbank student from its waveform twin."""
    config = structures(scale.width)[name.removesuffix(BOTH)]
    if config.front_end == "fbank":
        twin = load_student(student_path(scale, name.replace("fbank", "waveform")))[0]
        teacher, student = (
            Teacher(twin, None, name.replace("fbank", "waveform")),
            swap_front_end(twin, like=config),
        )
        steps = scale.steps(7500)
        losses = swap_losses(twin.config, min(scale.steps(1500), steps - 1))
        recipe = TrainConfig(steps, 1e-3, stages=(losses.adaptation.steps,), log_every=25)
    else:
        teacher = the_teacher(scale)
        student = new_student(config, teacher.model)
        losses = DistillConfig(
            default_pairs(config, teacher.config),
            discriminative_weight=1.0 if name.endswith(BOTH) else 0.0,
            augmenting=AUGMENTED,
        )
        recipe = TrainConfig(scale.steps(10_000), 2e-3, weight_decay=0.01, log_every=25)
    every = speech("unlabelled", scale.unlabelled)
    facts = distil(student, teacher, losses, recipe, every, 64, scale.work / "students" / name)
    about = {"structure": name, "teacher": teacher.source, "losses": asdict(losses), "lr": recipe.lr}
    save_model(path, student, about | facts, pack=half)


def distil(
    student: SpeechModel,
    teacher: Teacher,
    losses: DistillConfig,
    recipe: TrainConfig,
    utterances: list[Utterance],
    seconds: float,
    out: Path,
) -> dict:
    """Trains ``student`` in batches of ``seconds``; what it heard, and its losses over the last tenth of the log."""
    fit_statistics(student, utterances)
    batches = Batches(utterances, seconds, recipe.seed, read=samples)
    log = train(DistillTask(student, teacher, losses), batches, recipe, out, title=out.name)
    batches.close()
    tail = log[-max(1, len(log) // 10) :]
    parts = [part for part in ("loss", "regression", "discriminative", "spread", "codes") if part in tail[-1]]
    return {
        "steps": recipe.steps,
        "batch_seconds": seconds,
        "hours": round(recipe.steps * batches.seconds / batches.steps_per_epoch / 3600, 1),
        "parameters": parameter_count(student),
        "ended": {part: float(np.mean([row[part] for row in tail])) for part in parts},
    }


# -------------------------------------------------------------------------------------------------------- recognisers

STEPS = {1: 3000, 10: 6000, 60: 10_000}  # of fine-tuning, by minutes of labels
SHIPPED = {  # recognisers whose weights are kept
    ("teacher, pretrained", 60),
    *((f"tiny-sw-fbank, {start}", minutes) for start in ("distilled", "scratch") for minutes in (10, 60)),
    ("tiny-sw-waveform, distilled", 10),
}


def begin(scale: Scale, way: str, labelled: list[Utterance], seed: int) -> SpeechModel:
    """The model that fine-tuning starts from, for instance of "tiny-sw-fbank, scratch"."""
    name, start = way.split(", ")
    if start == "scratch":
        return from_scratch(new_student(structures(scale.width)[name]), labelled, seed)
    if start == "distilled":
        return load_student(student_path(scale, name))[0]
    if start == "pretrained":
        return the_teacher(scale).model
    return load_teacher(str(heard(scale, way))).model


def heard(scale: Scale, way: str) -> Path:
    """Where the teacher's weights are that "teacher, heard 50 hours" means."""
    return scale.work / "teacher" / f"heard_{way.split()[2]}.safetensors"


def recognise(
    scale: Scale, way: str, model: SpeechModel, minutes: float, steps: int, seed: int, out: Path
) -> tuple[CTCModel, dict]:
    """Fine-tunes ``model``: the recogniser, its findings on both test sets, and WERs on dev while it learned."""
    recipe = TrainConfig(
        steps, 1e-3, warmup=0.1, hold=0.3, schedule="tri-stage", weight_decay=0.01, seed=seed, log_every=100,
        evaluate_every=max(1, steps // 4),
    )  # fmt: skip
    config, dev = FineTuneConfig(speeds=(0.9, 1.0, 1.1)), speech("dev", scale.dev)
    recogniser, facts = fine_tune(
        model.requires_grad_(True), speech("train", minutes), recipe, out, dev, config, title=out.name
    )
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {
        "dev": [[row["step"], row["dev_wer"]] for row in rows if "dev_wer" in row],
        "loss": facts["loss"],
    }
    run = {"steps": steps, "minutes": minutes, "parameters": facts["parameters"], "seconds": facts["seconds"]}
    for split in ("test-clean", "test-other"):
        score = evaluate(recogniser, speech(split, scale.test)).score
        found[split] = asdict(Finding(way, seed, score.word_errors, score.word_counts, **run))
    return recogniser, found


def make_recogniser(scale: Scale, path: Path, way: str, minutes: float, steps: int, seed: int) -> None:
    model, out = begin(scale, way, speech("train", minutes), seed), scale.work / "recognisers" / path.stem
    recogniser, found = recognise(scale, way, model, minutes, steps, seed, out)
    if seed == 0 and (way, minutes) in SHIPPED and steps == scale.steps(STEPS[minutes]):
        name = f"recogniser_{way.replace(', ', '_').replace('-', '_')}_{minutes:g}.safetensors"
        save_recogniser(scale.made / name, recogniser, found, pack=half)
    write_text(path, json.dumps(found) + "\n")


# ------------------------------------------------------------------------------------------------------------ studies


@dataclass(frozen=True)
class Trial:
    """A way to distil. In a share ``adapt`` of the steps only the front-end learns; ``on_top``: before all of them."""

    student: ModelConfig
    losses: dict = field(default_factory=dict)
    adapt: float = 0.0
    on_top: bool = False


@functools.lru_cache(None)
def trials(width: int) -> dict[str, Trial]:
    """What the lessons compare: losses, adaptation, front-ends, structures with equally many parameters."""
    fbank, waveform = (structures(width)[f"tiny-sw-{front_end}"] for front_end in ("fbank", "waveform"))
    found = {
        "fbank": Trial(fbank),
        "fbank, both losses 0.4": Trial(fbank, {"discriminative_weight": 0.4}),
        "fbank, both losses 1.0": Trial(fbank, {"discriminative_weight": 1.0}),
        "fbank, discriminative": Trial(fbank, {"discriminative_weight": 1.0, "regression_weight": 0.0}),
        "fbank, adapted instead": Trial(fbank, adapt=1 / 3),
        "fbank, adapted on top": Trial(fbank, adapt=1 / 3, on_top=True),
        "waveform": Trial(waveform),
    }
    deeper = propose(count_parameters(waveform) + 10_000, waveform, layers=(4, 8, 12))
    found |= {f"waveform, {shape}": Trial(config) for shape, config in deeper.items()}
    shape, deepest = list(deeper.items())[-1]  # with the targets of the others, too, not layer by layer
    return found | {
        f"waveform, {shape}, prediction heads": Trial(deepest, {"pairs": prediction_heads(deepest)})
    }


CONTRASTS = (  # and every deeper waveform student against the shallow one
    ("fbank, both losses 0.4", "fbank"),
    ("fbank, both losses 1.0", "fbank"),
    ("fbank, discriminative", "fbank"),
    ("fbank, adapted instead", "fbank"),
    ("fbank, adapted on top", "fbank"),
    ("fbank", "waveform"),
)
# by budget: minutes of labels that students of a study are fine-tuned on, too
LISTENS = {16: (10,), 64: (1, 10, 60)}


def make_study(scale: Scale, path: Path, name: str, budget: int, seed: int) -> None:
    """Distils a trial, probes it for phones and, where :data:`LISTENS` says so, fine-tunes it."""
    trial, teacher, steps = trials(scale.width)[name], the_teacher(scale), scale.steps(200 * budget)
    adapting = max(1, round(trial.adapt * steps)) if trial.adapt else 0
    student = new_student(trial.student, teacher.model, seed)
    losses = DistillConfig(
        **{"pairs": default_pairs(student.config, teacher.config)} | trial.losses,
        adaptation=Adaptation(adapting) if adapting else None,
    )
    stages = (adapting,) if adapting else ()
    recipe = TrainConfig(
        steps + adapting * trial.on_top, 2e-3, stages=stages, seed=seed, weight_decay=0.01, log_every=25
    )
    out = scale.work / "studies" / path.stem
    facts = distil(student, teacher, losses, recipe, speech("unlabelled", scale.first), 16, out)
    voices = speech("train", max(scale.labelled)), speech("test-clean", scale.test)
    probe = phone_probe(student, *voices, scale.frames, scale.frames, last_only=True)
    last = probe.layers[-1]
    phones = Finding(
        name, seed, last.hits, last.totals, PHONES, recipe.steps, parameters=facts["parameters"],
        losses=facts["ended"],
    )  # fmt: skip
    found = {"phones": asdict(phones), "budget": budget, "hours": facts["hours"], "recognisers": []}
    distilled = {key: value.clone() for key, value in student.state_dict().items()}
    for minutes in listens(budget, seed):
        student.load_state_dict(distilled)
        steps, out = scale.steps(STEPS[minutes]), scale.work / "studies" / f"{path.stem}-{minutes:g}min"
        found["recognisers"].append(recognise(scale, name, student, minutes, steps, seed, out)[1])
    write_text(path, json.dumps(found) + "\n")


def listens(budget: int, seed: int) -> tuple[float, ...]:
    return LISTENS.get(budget, ()) if seed < 2 else ()


# -------------------------------------------------------------------------------------------------------------- tasks


def tasks(scale: Scale) -> list[Task]:
    """All tasks, the most important ones first. Their ``seconds`` follow from what an H200 did: 70 steps of fine-tuning
    a second in each of ten processes, 100 of distillation in batches of 16 s, and 400 x real time a core for speech.
    """

    def task(name: str, kind: str, path: Path, maker: Callable, *args, **more) -> Task:
        return Task(name, kind, path, functools.partial(maker, scale, path, *args), **more)

    made, work = scale.made, scale.work
    first, more, iteration = "speech", "more speech", "pre-training, first iteration"
    found = [
        task(first, "speech", work / "first.txt", make_speech, scale.first, seconds=30, slots=99),
        task(
            iteration, "first iteration", scale.first_teacher, pretrain_first,
            needs=(first,), seconds=30 + 100 * scale.share, slots=6,
        ),
        task(
            more, "more speech", work / "all.txt", make_speech, scale.unlabelled,
            needs=(first,), seconds=90, slots=2,
        ),
        task(
            "teacher", "teacher", made / TEACHER, pretrain_second,
            needs=(iteration, more), seconds=60 + 340 * scale.share, slots=6,
        ),
    ]  # fmt: skip
    for name in STUDENTS:
        source = "teacher" if "waveform" in name else name.replace("fbank", "waveform")
        seconds = 10 + 110 * scale.share
        path = student_path(scale, name)
        found.append(
            task(name, "student", path, make_student, name, needs=(source, more), seconds=seconds, slots=2)
        )
    path = made / "teacher_phones.json"
    found.append(task("phones", "probe", path, probe_teacher, needs=("teacher",), seconds=40))
    return [*found, *recogniser_tasks(scale), *study_tasks(scale)]


def recogniser_tasks(scale: Scale) -> Iterator[Task]:
    def task(way: str, minutes: float, steps: int, seed: int) -> Task:
        name = f"{way}, {minutes:g} min, {steps} steps, seed {seed}"
        path = scale.made / "recognisers" / f"{slug(name)}.json"
        system, start = way.split(", ")
        source = {"scratch": (), "distilled": (system,)}.get(start, ("teacher",))
        make = functools.partial(make_recogniser, scale, path, way, minutes, steps, seed)
        deep = 2 if system in ("teacher", "tiny-dt-fbank") else 1
        return Task(name, "recogniser", path, make, ("speech", *source), 15 + deep * steps / 70)

    structured = ("tiny-sw-waveform", "tiny-sw-fbank", "tiny-dt-fbank")
    ways = ["teacher, scratch", *(f"{name}, scratch" for name in structured), "teacher, pretrained"]
    ways += [
        f"{name}, distilled" for name in (*structured, f"tiny-sw-waveform{BOTH}", f"tiny-sw-fbank{BOTH}")
    ]
    for seed in scale.seeds:
        for minutes in sorted(scale.labelled, key=lambda minutes: (minutes != 10, minutes)):
            yield from (task(way, minutes, scale.steps(STEPS[minutes]), seed) for way in ways)
        if seed == 0 and 10 in scale.labelled:
            for way in (f"teacher, heard {hours} hours" for hours in scale.hours):
                # weights stay where they were made
                if heard(scale, way).exists() or not (scale.made / TEACHER).exists():
                    yield task(way, 10, scale.steps(STEPS[10]), seed)
    if 10 in scale.labelled:  # did they converge, and which verdict is there before?
        for factor, seeds in ((2, scale.seeds[:1]), (1 / 4, scale.seeds), (1 / 12, scale.seeds)):
            for seed in seeds:
                for way in (
                    f"{name}, {start}" for name in structured[:2] for start in ("distilled", "scratch")
                ):
                    yield task(way, 10, scale.steps(STEPS[10] * factor), seed)


def study_tasks(scale: Scale) -> Iterator[Task]:
    for budget, seeds in scale.budgets.items():
        for seed in range(seeds):
            for name in trials(scale.width):
                path = scale.made / "studies" / f"{slug(f'{name}, {budget}x, seed {seed}')}.json"
                make = functools.partial(make_study, scale, path, name, budget, seed)
                steps = scale.share * (
                    2 * budget + sum(STEPS[minutes] / 70 for minutes in listens(budget, seed))
                )
                yield Task(
                    f"study: {name}, {budget}x, seed {seed}", "study", path, make, ("teacher",), 20 + steps
                )
