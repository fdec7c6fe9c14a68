"""How long the lessons train on which GPU, and in how much memory: measured on one, computed for the others.

A step of distillation costs 2 operations for each multiply-accumulate of the teacher and 6 of the student (forward and
backward). On an H200, with CUDA graphs, HuBERT Base and the deep & thin Fbank student, it took

    seconds = FIXED + operations / RATE

through 23.6 ms for 141.5 s of speech and 82.3 ms for 587.6 s (batches of up to 150 and 600 s). Another GPU is slower by
the ratio of published peaks or of published memory bandwidths, whichever is larger. What two cores of a hosted machine
add (reading, probing, beam search, widgets) is not in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

from kdkit.common.errors import ConfigError
from kdkit.common.files import cache_folder, free_bytes
from kdkit.lessons.profiles import Profile
from kdkit.lessons.trials import loss_variants
from kdkit.lessons.worlds import World
from kdkit.model.costs import count_macs
from kdkit.model.speech_model import preset
from kdkit.recognition.finetune import FineTuneConfig

FIXED, RATE = 0.0049, 1.79e14  # seconds; floating-point operations a second
# seconds of a step without graphs, in which the H200 waited for the CPU: fine-tuning's upper bound
LAUNCH = 0.097
_BASE_GB, _GB_A_SECOND = 0.53, 0.0203  # without graphs, which take less: 3.58 GB at 150 s, 12.73 GB at 600 s
_TINY_SHARE = 0.15  # of that memory; not measured
_STRUCTURES, _WAYS = 4, 7  # of notebook 02's second study; to begin, in notebook 04


@dataclass(frozen=True)
class Gpu:
    """``peak``: published dense TFLOP/s in the precision that training takes there; ``bandwidth`` in TB/s and
    ``memory`` in GB, as published; ``measured``: hours of speech that distillation goes through in an hour in batches
    of 150 s, None where there was no such GPU.
    """

    name: str
    precision: str
    peak: float
    bandwidth: float
    memory: float
    measured: float | None = None

    @property
    def slowness(self) -> float:
        """How many times longer than on the H200 a step takes."""
        return max(989 / self.peak, 4.8 / self.bandwidth)


GPUS = (
    Gpu("T4", "fp16", 65, 0.32, 16),
    Gpu("L4", "bf16", 121, 0.30, 24),
    Gpu("A100", "bf16", 312, 1.555, 40),
    Gpu("H100", "bf16", 989, 3.35, 80),
    Gpu("H200", "bf16", 989, 4.8, 141, measured=6_006),
)


def gpu_here() -> Gpu | None:
    """The GPU of this machine, where it is one of :data:`GPUS`."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((gpu for gpu in GPUS if re.search(rf"\b{gpu.name}\b", name)), None)


def expectation(world: World, size: Profile, notebook: str) -> str:
    """A sentence on how long ``notebook`` trains on this machine's GPU, and in how much memory; in a world of HuBERT
    Base's size and without such a GPU, on those that are known. "" where nothing is trained or nothing is known.
    """
    here, base = gpu_here(), world.students == ""
    gpus = (here,) if here else GPUS if base else ()
    minutes = {gpu: training_minutes(gpu, world, size).get(notebook[:2]) for gpu in gpus}
    if not minutes or None in minutes.values():
        return ""
    memory = f"{training_gigabytes(size.seconds_per_batch, base):.1f}"
    if here:
        how = "measured speed" if here.measured else "computed"
        took = f"{max(1, round(minutes[here]))} min of training in {memory} of {here.memory:g} GB ({how})"
        return f"expected on this {here.name}: {took}; downloads and probes come on top"
    each = ", ".join(f"{gpu.name} {max(1, round(m))} min" for gpu, m in minutes.items())
    return f"training would take: {each}, in {memory} GB of GPU memory (computed); longer on what is here"


def to_fetch(world: World, minutes: Mapping[str, float]) -> str:
    """A sentence on what is still to be downloaded for so many minutes of a world's splits, and the disk that it
    needs; "" where all is there.
    """
    gigabytes, cache = world.to_download(minutes) / 1000, cache_folder()
    if not gigabytes:
        return ""
    needs = f"to download, for all notebooks: {gigabytes:.1f} GB, which take {2 * gigabytes:.1f} GB of disk"
    return f"{needs}; {free_bytes(cache) / 1e9:.0f} GB are free in {cache}"


def training_gigabytes(seconds_per_batch: float, base: bool = True) -> float:
    """GPU memory of distilling HuBERT Base (or the tiny teacher) into its deep & thin student, live."""
    whole = _BASE_GB + _GB_A_SECOND * seconds_per_batch
    return whole if base else _TINY_SHARE * whole


def check_machine(
    world: World, minutes: Mapping[str, float], seconds_per_batch: float, device: torch.device
) -> None:
    """Raises :class:`ConfigError` where disk or GPU memory cannot hold so many minutes of a world's splits: before any
    download.

    An archive and what is unpacked from it are about the same size, and both stay: so twice the download is needed.
    """
    cache = cache_folder()
    needed, free = 2e6 * world.to_download(minutes), free_bytes(cache)
    if needed > free:
        raise ConfigError(
            f"world {world.name}: downloads need {needed / 1e9:.0f} GB in {cache}, {free / 1e9:.0f} GB are free. Make "
            "room, or set $KDKIT_CACHE to a larger disk (on Colab a mounted Drive), or take world toy"
        )
    if device.type != "cuda":
        return
    free_gpu, whole = (b / 1e9 for b in torch.cuda.mem_get_info(device))
    needed_gpu = training_gigabytes(seconds_per_batch, world.students == "")
    if needed_gpu > free_gpu:
        raise ConfigError(
            f"world {world.name}: batches of {seconds_per_batch:g} s need about {needed_gpu:.1f} GB of GPU memory, "
            f"{free_gpu:.1f} of {whole:.1f} GB are free. End other programs on it, or take a smaller profile or world "
            "toy"
        )


@lru_cache(maxsize=16)
def operations(teacher: str, student: str, seconds: float) -> float:
    """Floating-point operations of a training step for a second of speech; teacher "" for fine-tuning."""
    frozen = 2 * count_macs(preset(teacher), seconds) if teacher else 0.0
    return frozen + 6 * count_macs(preset(student), seconds)


def step_seconds(gpu: Gpu, seconds_per_batch: float, work: float) -> float:
    """Of one step, ``work`` being operations for a second of speech."""
    return gpu.slowness * (FIXED + seconds_per_batch * work / RATE)


def speed(gpu: Gpu, world: World, seconds_per_batch: float) -> float:
    """Hours of speech that distilling the deep & thin Fbank student goes through in an hour."""
    work = operations(world.teacher_preset, world.student("dt", "fbank"), world.utterance_seconds)
    return seconds_per_batch / step_seconds(gpu, seconds_per_batch, work)


def training_minutes(gpu: Gpu, world: World, size: Profile) -> dict[str, float]:
    """Minutes that each notebook trains, by its first two digits."""
    work = operations(world.teacher_preset, world.student("dt", "waveform"), world.utterance_seconds)
    live = step_seconds(gpu, size.seconds_per_batch, work)
    alone = operations("", world.student("sw", "waveform"), world.utterance_seconds)
    alone = max(LAUNCH, step_seconds(gpu, FineTuneConfig.batch_seconds, alone))
    losses = len(loss_variants(whole=size.overnight)) * len(size.study_seeds)
    studies = size.study_steps * (losses + _STRUCTURES * len(size.structure_seeds))
    budgets = len(size.label_minutes) * len(size.label_seeds) * _WAYS
    own = 2 * len(size.study_seeds)  # trainings of an experiment of one's own
    seconds = {
        "02": (2 * size.distill_steps + studies + own * size.own_steps) * live,
        "03": (3 * size.twin_steps + size.swap_steps + own * size.own_steps) * live,
        "04": (2 * size.finetune_steps + budgets * size.label_steps + own * size.own_label_steps) * alone,
    }
    return {number: s / 60 for number, s in seconds.items()}


def readme_table(world: World, size: Profile) -> str:
    """Rows of GPUs as README shows them: what training takes there, of :data:`GPUS`."""
    lines = [
        "| GPU | trains in | 150 s a batch | 02 trains | 03 | 04, at most | GPU memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for gpu in GPUS:
        known = gpu.measured is not None
        hours = gpu.measured or speed(gpu, world, 150)
        minutes = [
            f"{m:.0f} min" if m >= 1 else "under 1" for m in training_minutes(gpu, world, size).values()
        ]
        cells = [gpu.name, gpu.precision, f"{hours:,.0f} h an hour{', measured' if known else ''}", *minutes]
        memory = training_gigabytes(size.seconds_per_batch, world.students == "")
        lines.append(f"| {' | '.join(cells)} | {memory:.1f} of {gpu.memory:g} GB |")
    return "\n".join(lines)
