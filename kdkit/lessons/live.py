"""Models that a world does not have: trained when a lesson asks for one, kept in the run folder, taken from there then.

The toy world ships with its models; in another one a notebook that is started alone says here what it trains first, and
how long that takes where the GPU is known. A training that was stopped goes on.
"""

from __future__ import annotations

from pathlib import Path

from kdkit.distill import DistillConfig, DistillTask, default_pairs
from kdkit.fbank import fit_statistics
from kdkit.lessons.machines import gpu_here, operations, step_seconds
from kdkit.lessons.profiles import Profile
from kdkit.lessons.worlds import World
from kdkit.model.speech_model import SpeechModel
from kdkit.recognition.ctc import CTCModel, load_recogniser, save_recogniser
from kdkit.recognition.finetune import fine_tune, from_scratch
from kdkit.speech.batches import Batches
from kdkit.students import new_student
from kdkit.teachers import Teacher, save_model
from kdkit.teachers.pretrain import kmeans_codebook
from kdkit.training.loop import train
from kdkit.training.processes import processes
from kdkit.training.recipe import TrainConfig

STARTS = ("distilled", "scratch")


def with_codebook(teacher: Teacher, world: World, size: Profile, folder: Path, seed: int = 0) -> Teacher:
    """The teacher; where it has no codebook, k-means centroids of its last layer serve, kept in ``folder``."""
    if teacher.codebook is None:
        speech = world.speech("unlabelled", min(60.0, size.unlabelled_minutes))
        path = folder / "codebook.safetensors"
        codebook = kmeans_codebook(teacher.model, speech, world.clusters, seed=seed, keep=path)
        teacher.codebook = codebook.to(next(teacher.model.parameters()).device)
    return teacher


def distil(world: World, name: str, teacher: Teacher, size: Profile, folder: Path, seed: int = 0) -> Path:
    """FOLDER/NAME.safetensors: a student distilled on the world's unlabelled speech, as notebook 02 does it.

    ``name`` is a preset; NAME-both is trained with the cluster ids too, and needs a teacher with a codebook.
    """
    path = folder / f"{name.replace('-', '_')}.safetensors"
    if path.is_file():
        return path
    preset, both = name.removesuffix("-both"), name.endswith("-both")
    processes().print(
        f"{name} is not there: distilled now, {size.distill_steps} steps{_time(world, preset, size)}"
    )
    speech = world.speech("unlabelled", size.unlabelled_minutes)
    student = new_student(preset, teacher.model, seed)
    fit_statistics(student, speech)
    pairs = default_pairs(student.config, teacher.config)
    task = DistillTask(student, teacher, DistillConfig(pairs, discriminative_weight=1.0 if both else 0.0))
    recipe = TrainConfig(steps=size.distill_steps, lr=world.lr, seed=seed)
    batches = Batches(speech, size.seconds_per_batch, seed)
    try:
        train(task, batches, recipe, folder / "runs" / name, title=f"distilling {name}")
    finally:
        batches.close()
    if processes().is_main_process:
        save_model(path, student, {"structure": preset, "preset": preset, "steps": recipe.steps})
    return path


def recognisers(
    world: World, student: SpeechModel, size: Profile, folder: Path, seed: int = 0
) -> dict[str, tuple[CTCModel, dict]]:
    """Two recognisers of the shallow & wide waveform student, by name: fine-tuned from ``student``, and from scratch,
    on the same labels for the same steps. Trained where ``folder`` does not have them.
    """
    system, minutes, found = world.student("sw", "waveform"), size.finetune_minutes, {}
    for start in STARTS:
        name = f"{system}-{start}-{minutes:g}".replace("-", "_")
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            print(f"recogniser {name} is not there: fine-tuned now, {size.finetune_steps} steps")
            speech = world.labels(minutes)
            model = student if start == "distilled" else from_scratch(student, speech, seed)
            recipe = TrainConfig(
                steps=size.finetune_steps, lr=1e-3, warmup=0.1, schedule="tri-stage", seed=seed
            )
            dev = world.speech("dev", size.dev_minutes)
            recogniser, facts = fine_tune(model, speech, recipe, folder / "runs" / name, dev, title=name)
            meta = {
                "system": system,
                "start": start,
                "minutes": minutes,
                "steps": facts["steps"],
                "seed": seed,
            }
            save_recogniser(path, recogniser, meta)
        found[name] = load_recogniser(path)
    return found


def _time(world: World, preset: str, size: Profile) -> str:
    """ ", about 5 minutes on this T4"; nothing where the GPU is not known."""
    gpu = gpu_here()
    if gpu is None:
        return ""
    work = operations(world.teacher_preset, preset, world.utterance_seconds)
    step = step_seconds(gpu, size.seconds_per_batch, work)
    return f", about {max(1, round(size.distill_steps * step / 60))} minutes on this {gpu.name}"
