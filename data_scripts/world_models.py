"""What the notebooks take as given in another world than the toy one: students, recognisers, the study of front-ends.

    accelerate launch data_scripts/make_models.py --world librispeech --out runs/paper-models

All processes train each model together, one model after the other; stopped, it goes on when it is run again. OUT/assets
is what KDKIT_ASSETS names then, OUT/work has the trainings. Studies of losses, of structures and of minutes of labels
are left to the notebooks.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from make_study import front_ends

from kdkit.common.files import write_atomically, write_text
from kdkit.fbank import fit_statistics
from kdkit.lessons import live
from kdkit.lessons.experiments import run_experiment, save_findings
from kdkit.lessons.lesson_models import WORLD
from kdkit.lessons.machines import check_machine
from kdkit.lessons.profiles import Profile
from kdkit.lessons.trials import Distillations
from kdkit.lessons.worlds import World, check_voices
from kdkit.model.checkpoints import load_checkpoint
from kdkit.probing import phone_probe
from kdkit.recognition.alignment import Aligner, add_phones, bundle_aligner
from kdkit.recognition.ctc import save_recogniser
from kdkit.recognition.evaluate import evaluate
from kdkit.recognition.finetune import fine_tune, from_scratch
from kdkit.speech.batches import Batches
from kdkit.speech.manifest import Utterance, subset
from kdkit.teachers import Teacher, load_model
from kdkit.training.processes import processes
from kdkit.training.recipe import TrainConfig


def make(world: World, size: Profile, out: Path, seed: int = 0) -> Path:
    """OUT/assets with all models of a world at a profile's sizes.

    What is missing is downloaded first. Raises :class:`KdkitError` for too little disk or GPU memory, for what cannot
    be downloaded, and for a test set with speakers of training, before anything is trained.
    """
    assets, work, state = out / "assets", out / "work", processes()
    lengths = size.minutes(world.tests)
    with state.main_process_first():
        check_machine(world, lengths, size.seconds_per_batch, state.device)
        speech = {split: world.speech(split, minutes) for split, minutes in lengths.items()}
        check_voices(speech)
        budgets = {m: world.labels(m) for m in (size.label_minutes[0], size.label_minutes[-1])}
        aligner = bundle_aligner(device=state.device)
        teacher = world.load_teacher()
        teacher = live.with_codebook(teacher.to(state.device), world, size, work / "students", seed)
    wide = [world.student("sw", "fbank"), world.student("sw", "waveform")]
    students = {}
    for name in (*world.presets, *(f"{name}-both" for name in wide)):
        students[name] = _once(
            work / "students" / f"{name.replace('-', '_')}.safetensors",
            lambda name=name: live.distil(world, name, teacher, size, work / "students", seed),
        )
        _collect(students[name], assets)
    study = _once(
        work / "study_front_ends.json",
        lambda: front_end_study(world, size, teacher, speech["unlabelled"], aligner, work),
    )
    _collect(study, assets)
    for system in wide:
        for start in live.STARTS:
            for minutes, labelled in budgets.items():
                path = work / f"recogniser_{system.replace('-', '_')}_{start}_{minutes:g}.safetensors"
                about = {"system": system, "start": start, "minutes": minutes, "seed": seed}
                parts = (students[system], speech | {"train": labelled}, about)
                _once(path, lambda path=path, parts=parts: recogniser(world, size, path, *parts))
                _collect(path, assets)
    if state.is_main_process:
        rows = [
            row
            for p in sorted(work.glob("recogniser_*.safetensors"))
            for row in load_checkpoint(p)[1]["metrics"]
        ]
        write_text(assets / "metrics.json", json.dumps(rows, indent=1) + "\n")
        write_text(assets / WORLD, world.name + "\n")
        print(f"models: {assets}")
    return assets


def recogniser(world: World, size: Profile, path: Path, student: Path, speech: dict, about: dict) -> None:
    """Fine-tunes one recogniser and scores it on the world's test sets."""
    labelled, seed = speech["train"], about["seed"]
    model = load_model(student)[0]
    if about["start"] == "scratch":
        model = from_scratch(model, labelled, seed)
    recipe = TrainConfig(
        steps=size.finetune_steps,
        lr=1e-3,
        warmup=0.1,
        hold=0.3,
        schedule="tri-stage",
        weight_decay=0.01,
        seed=seed,
    )
    model.requires_grad_(True)
    found, facts = fine_tune(model, labelled, recipe, path.with_suffix(""), speech["dev"], title=path.stem)
    about = about | {"steps": facts["steps"], "parameters": facts["parameters"]}
    if processes().is_main_process:
        scores = {split: evaluate(found, speech[split]).score for split in world.tests}
        rows = [about | {"split": split} | score.to_dict() for split, score in scores.items()]
        save_recogniser(path, found, about | {"metrics": rows})


def front_end_study(
    world: World, size: Profile, teacher: Teacher, speech: list[Utterance], aligner: Aligner, work: Path
) -> None:
    """The deep & thin Fbank student with and without adaptation, and its waveform twin, probed for phones."""
    minutes = (size.probe_train_minutes, size.probe_test_minutes)
    train, test = (
        subset(add_phones(subset(part, m), aligner), m)
        for part, m in zip(world.probe_speech(minutes), minutes, strict=True)
    )
    frames = size.probe_frames // 2
    study = Distillations(
        front_ends(teacher.config, size.twin_steps, world.students),
        teacher,
        lambda model: phone_probe(model, train, test, frames, frames, last_only=True),
        lambda seed: Batches(speech, size.seconds_per_batch, seed),
        TrainConfig(steps=size.twin_steps, lr=world.lr),
        lambda student: fit_statistics(student, speech),
    )
    findings = run_experiment(study, size.study_seeds, work / "trials front-ends")
    if processes().is_main_process:
        save_findings(work / "study_front_ends.json", findings, steps=size.twin_steps, world=world.name)


def _once(path: Path, make: Callable[[], object]) -> Path:
    """``path``, made by all processes together where it was not there when the first of them came."""
    there = path.is_file()
    processes().wait_for_everyone()  # no process has made it yet
    if not there:
        make()
        processes().wait_for_everyone()  # the main one has written it
    return path


def _collect(path: Path, assets: Path) -> None:
    if processes().is_main_process:
        write_atomically(assets / path.name, lambda new: shutil.copyfile(path, new))
