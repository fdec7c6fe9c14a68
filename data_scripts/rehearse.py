"""Rehearsal of the real world without the network: python data_scripts/rehearse.py [--notebooks] [--out runs/rehearsal]

Builds stand-ins for everything that world librispeech downloads, serves them on 127.0.0.1, and goes the whole way from
an empty cache: an interrupted download, archives, teacher, distillation, a new front-end, fine-tuning, and evaluation
with a language model. The same in the toy world, from the same speech and weights, must give the same numbers to the
last digit. ``--notebooks`` runs the notebooks on the stand-ins instead, in profile smoke, in both worlds (``--only
04``: one of them); ``--paper`` makes ``make report PROFILE=paper`` with all sizes cut, stopped by Ctrl-C twice.
``--true-size`` computes a few steps at HuBERT Base's size (random weights, utterances of 15 s) and prints memory and
time, in every precision that the device has.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import standins
import torch

from kdkit.common import downloads
from kdkit.common.errors import DownloadError
from kdkit.common.machine import best_device, training_precision
from kdkit.distill import DistillConfig, DistillTask, default_pairs, swap_losses
from kdkit.fbank import fit_statistics
from kdkit.lessons.machines import training_gigabytes
from kdkit.lessons.worlds import LIBRISPEECH, TOY, World
from kdkit.model.speech_model import PRESETS, SpeechModel, preset
from kdkit.recognition.decode import BeamSearch
from kdkit.recognition.evaluate import evaluate
from kdkit.recognition.finetune import fine_tune
from kdkit.recognition.lm import estimate
from kdkit.recognition.search import available
from kdkit.speech.batches import Batches
from kdkit.speech.corpora import librispeech
from kdkit.students import load_student, new_student, swap_front_end
from kdkit.teachers import Teacher, load_teacher, save_model
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig


@dataclass(frozen=True)
class Size:
    """Minutes of speech, steps of each training, seconds a batch."""

    unlabelled: float = 2
    labelled: float = 0.5  # of twelve times as much in the stand-in of Libri-Light
    dev: float = 0.3
    test: float = 0.5
    steps: int = 4
    seconds_per_batch: float = 16


SPLITS = {
    "unlabelled": "train-clean-100",
    "dev": "dev-clean",
    "test-clean": "test-clean",
    "test-other": "test-other",
}


def build(site: Path, size: Size) -> World:
    """Writes all stand-ins to ``site``; returns the toy world of the same speech and weights."""
    minutes = {
        "unlabelled": size.unlabelled,
        "dev": size.dev,
        "test-clean": size.test,
        "test-other": size.test,
    }
    for number, (split, subset) in enumerate(SPLITS.items()):
        standins.librispeech_archive(site, subset, TOY.speech(split, minutes[split]), 1000 * (number + 1))
    labelled = TOY.labels(12 * size.labelled)
    standins.librilight_archive(site, labelled, 9000)
    tiny = load_teacher("tiny")
    teacher = standins.without_residual_scale(tiny.model)
    finished = standins.without_residual_scale(load_student("tiny-sw-waveform")[0])
    standins.fairseq_file(site, teacher, tiny.codebook)
    standins.hub_folder(site, finished)
    sentences = [u.text.split() for u in labelled]
    words = sorted({word for sentence in sentences for word in sentence})
    estimate(sentences, 3).write(site / "toy.arpa")
    (site / "toy.txt").write_text("\n".join(words))
    standins.language_model(site, site / "toy.arpa", words)
    save_model(site / "teacher.safetensors", teacher, {}, tiny.codebook)
    save_model(site / "finished.safetensors", finished, {})
    return replace(
        TOY,
        teacher=str(site / "teacher.safetensors"),
        finished={TOY.student("sw", "waveform"): str(site / "finished.safetensors")},
        language_model=str(site / "toy.arpa"),
    )


def in_miniature():
    """Within, the presets of the paper's size are the toy world's, which go with the stand-ins."""
    names = {n for family in LIBRISPEECH.families.items() for n in (family[0], *family[1])}
    return patch.dict(PRESETS, {name: PRESETS[f"{TOY.students}{_TOYS.get(name, name)}"] for name in names})


_TOYS = {"hubert-base": "teacher"}


def whole_path(world: World, size: Size, out: Path) -> dict[str, float]:
    """Teacher, distillation, a new front-end, fine-tuning, evaluation. Returns every loss and error rate on the way."""
    found = {}
    teacher, speech = world.load_teacher(), world.speech("unlabelled", size.unlabelled)
    recipe = TrainConfig(steps=size.steps, lr=2e-3, log_every=1)

    def learn(name: str, task: DistillTask, stages: tuple[int, ...] = ()) -> None:
        batches = Batches(speech, size.seconds_per_batch)
        log = train(task, batches, replace(recipe, stages=stages), out / name, title=name)
        batches.close()
        found.update(
            {f"{name}/{row['step']}/{k}": v for row in log for k, v in row.items() if k != "times_real_time"}
        )

    student = new_student(world.student("dt", "fbank"), teacher.model)
    fit_statistics(student, speech)
    losses = DistillConfig(default_pairs(student.config, teacher.config), discriminative_weight=0.4)
    learn("distil", DistillTask(student, teacher, losses))

    finished = world.finished_student(world.student("sw", "waveform"))
    swapped = swap_front_end(finished, like=world.student("sw", "fbank"))
    fit_statistics(swapped, speech)
    guide = Teacher(finished.requires_grad_(False).eval(), None, "finished", {})
    learn("swap", DistillTask(swapped, guide, swap_losses(finished.config, 1)), (1,))

    recogniser, facts = fine_tune(
        finished.requires_grad_(True),
        world.labels(size.labelled),
        replace(recipe, schedule="tri-stage", lr=1e-3),
        out / "fine-tune",
        world.speech("dev", size.dev),
    )
    found |= {"fine-tune/loss": facts["loss"], "fine-tune/dev": facts["dev_wer"]}
    decoders = {"greedy": {}}
    if available():
        arpa, words = world.lm_files()
        lexicon = tuple((words or arpa.with_suffix(".txt")).read_text().split())
        decoders["beam"] = {"decoder": BeamSearch(lexicon, arpa, 1.0)}
    for split in world.tests:
        test = world.speech(split, size.test)
        for name, options in decoders.items():
            score = evaluate(recogniser, test, jobs=1, **options).score
            found |= {f"{name}/{split}/wer": score.wer, f"{name}/{split}/cer": score.cer}
    return found


def interrupted(site: standins.Server, subset: str, cache: Path) -> str:
    """Downloads a subset while the network fails half-way; returns what is said then. The next try goes on there."""
    path = f"{standins.OPENSLR_12}/{subset}.tar.gz"
    site.cut += [(site.folder / path).stat().st_size // 2, 0]
    with patch.object(downloads, "ATTEMPTS", 1):
        try:
            librispeech.librispeech(cache, subset)
        except DownloadError as error:
            said = str(error)
        else:
            raise AssertionError(f"{subset} arrived, though the connection broke off")
    kept = (cache / f"{subset}.tar.gz.part").stat().st_size
    librispeech.librispeech(cache, subset)
    assert site.asked[-1] == (path, f"bytes={kept}-"), f"not gone on after {kept} bytes: {site.asked[-1]}"
    return said


def rehearse(out: Path, size: Size = Size()) -> tuple[dict[str, float], dict[str, float]]:
    """What came out in the real world, from its stand-ins, and in the toy world."""
    toy = build(out / "site", size)
    site = standins.Server(out / "site")
    cache = out / "cache"
    try:
        with standins.instead_of_the_network(site, cache), in_miniature():
            print(interrupted(site, SPLITS["unlabelled"], cache))
            real = whole_path(LIBRISPEECH, size, out / "real")
    finally:
        site.close()
    return real, whole_path(toy, size, out / "toy")


# --- true size ------------------------------------------------------------------------------------------------


def true_size(
    seconds_per_batch: float, steps: int, precision: str, memory_gb: float = 0
) -> dict[str, object]:
    """A few steps of distilling HuBERT Base (random weights) into the deep & thin Fbank student, utterances of 15 s."""
    device = best_device()
    if memory_gb and device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory_gb * 1e9 / whole), device)
    torch.manual_seed(0)
    teacher = Teacher(SpeechModel(preset("hubert-base")).requires_grad_(False).eval(), None, "random", {})
    student = new_student("dt-fbank", teacher.model)
    task = DistillTask(student, teacher, DistillConfig(default_pairs(student.config, teacher.config)))
    with tempfile.TemporaryDirectory() as folder:
        speech = noise_files(Path(folder), round(seconds_per_batch / 15))
        batches = Batches(speech, seconds_per_batch)
        recipe = TrainConfig(steps=steps, precision=precision, log_every=1)
        ends = [time.perf_counter()]
        train(task, batches, recipe, Path(folder, "run"), watch=lambda rows: ends.append(time.perf_counter()))
        batches.close()
    took = sorted(after - before for before, after in pairwise(ends[1:]))
    used = (
        torch.cuda.max_memory_reserved()
        if device.type == "cuda"
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "precision": training_precision(precision, device),
        "seconds a batch": seconds_per_batch,
        "steps": steps,
        "seconds a step": round(took[len(took) // 2], 3) if took else None,
        "memory, GB": round(used / 1e9, 2),
        "expected on a GPU, GB": round(training_gigabytes(seconds_per_batch), 2),
    }


def noise_files(folder: Path, count: int) -> list:
    import soundfile

    from kdkit.speech.manifest import Utterance

    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        path = folder / f"{number}.flac"
        soundfile.write(path, 0.1 * torch.randn(15 * 16_000, generator=generator).numpy(), 16_000)
        found.append(Utterance(str(number), path, 15.0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, help="folder for stand-ins and runs; default: one that is removed"
    )
    parser.add_argument(
        "--true-size", action="store_true", help="HuBERT Base's size: memory and time of a few steps"
    )
    parser.add_argument("--notebooks", action="store_true", help="the notebooks, in profile smoke")
    parser.add_argument(
        "--paper", action="store_true", help="models and notebooks of profile paper, in miniature"
    )
    parser.add_argument("--only", action="append", default=[], help="with --notebooks: this one; repeatable")
    parser.add_argument("--seconds-per-batch", type=float, default=60)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument(
        "--memory-gb", type=float, default=0, help="cap of the GPU's memory: 15 stands for a T4"
    )
    options = parser.parse_args()
    if options.true_size:
        kinds = ("fp16", "bf16") if torch.cuda.is_available() else ("fp32",)
        for kind in kinds:
            found = true_size(options.seconds_per_batch, options.steps, kind, options.memory_gb)
            print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        began, out = time.perf_counter(), options.out or Path(folder)
        if options.paper:
            import rehearse_notebooks

            found = rehearse_notebooks.rehearse_paper(out.absolute())["metrics"]
            print(
                f"profile paper, in miniature: {sum(map(len, found.values()))} numbers of {len(found)} notebooks"
            )
            return
        if options.notebooks:
            import rehearse_notebooks

            rows, count = rehearse_notebooks.different(
                *rehearse_notebooks.rehearse_notebooks(out, only=options.only)
            )
            differ = {f"{row.notebook}/{row.name}": (row.text(0), row.text(1)) for row in rows}
        else:
            real, toy = rehearse(out)
            count = len(toy)
            differ = {name: (real.get(name), toy[name]) for name in toy if real.get(name) != toy[name]}
        for name, (ours, theirs) in differ.items():
            print(f"{name}: {ours} in the real world, {theirs} in the toy world")
        seconds = time.perf_counter() - began
        print(f"{count - len(differ)} of {count} numbers are equal to the last digit, {seconds:.0f} s")
        if differ:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
