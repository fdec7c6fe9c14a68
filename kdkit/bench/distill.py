"""Speed of distillation as ratios from one run: a plain implementation, kdkit with live targets, kdkit with cached
targets; on a GPU also live without CUDA graphs.

The variants take turns in short bursts on the same speech, because timings fluctuate; every round gives one ratio.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from kdkit.bench.measure import forget_peak, matmul_flops, peak_gigabytes, quartiles
from kdkit.common.errors import ConfigError
from kdkit.common.machine import best_device, use_bf16
from kdkit.common.progress import tqdm
from kdkit.distill import DistillConfig, DistillTask, default_pairs
from kdkit.model import fast
from kdkit.model.codebook import Codebook
from kdkit.model.costs import count_macs
from kdkit.model.speech_model import ModelConfig, Output, SpeechModel, preset
from kdkit.speech.audio import read_audio
from kdkit.speech.batches import Batch, Batches, collate
from kdkit.speech.manifest import Utterance
from kdkit.teachers import Teacher
from kdkit.teachers.targets import TargetCache
from kdkit.training.graphs import Steps

WITHOUT_GRAPHS = "kdkit, live, no graphs"
PARTS = ("speech", "teacher", "student and losses", "backward", "optimiser")  # of a step, in their order
SIZES = {"tiny": ("tiny-teacher", "tiny-dt-fbank", 100), "full": ("hubert-base", "dt-fbank", 500)}


class PlainTask(nn.Module):
    """Distillation as it is often written: Fbank utterance by utterance, cosines in an expanded tensor.

    The losses of ``task``, except that they average over all frames, padding included. Raises :class:`ConfigError`
    without torchaudio.
    """

    def __init__(self, task: DistillTask):
        super().__init__()
        self.task = task
        try:
            from torchaudio.compliance.kaldi import fbank
        except (ImportError, OSError, RuntimeError) as error:  # the latter two beside a torch of another CUDA
            raise ConfigError(
                "the plain way takes its Fbank from torchaudio, which cannot be imported "
                f"({str(error).splitlines()[0]}): pip install torchaudio, or the torch of constraints.txt"
            ) from error
        self.fbank = fbank

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        task, student = self.task, self.task.student
        with torch.no_grad():
            target = task.teacher(batch.waves, batch.lengths)
        front_end = student.front_end
        bins = len(front_end.mean)
        features = [self.fbank(wave[None].cpu() * 32_768, num_mel_bins=bins) for wave in batch.waves]
        mels = torch.stack(features).to(batch.waves.device)
        whole = torch.full((len(mels),), mels.shape[1], device=mels.device)
        x = front_end.normalise(mels, whole).transpose(1, 2)
        x = x if front_end.first is None else F.gelu(front_end.first(x))
        x = F.glu(front_end.conv(x), dim=1)
        x = front_end.projection(x[..., : target.last.shape[1]].transpose(1, 2))
        output: Output = student.encode(x, target.frames)
        loss = 0.0
        for head, (s, t) in zip(task.heads, task.config.pairs, strict=True):
            p, h = head(output.hidden[s]), target.hidden[t]
            loss = loss + (p - h).abs().mean() - F.logsigmoid(F.cosine_similarity(p, h, dim=-1)).mean()
        own = task.cluster_head.projection(output.last)
        with torch.no_grad():
            q = expanded_cosine(task.codebook.final_proj(target.last), task.codebook.label_embeddings)
        p = expanded_cosine(own, task.codebook.label_embeddings)
        tau = task.codebook.tau
        kl = F.kl_div((p / tau).log_softmax(-1), (q / tau).softmax(-1), reduction="batchmean")
        return loss / len(task.heads) + kl / q.shape[1], {}


def expanded_cosine(frames: Tensor, embeddings: Tensor) -> Tensor:
    """(B, T, P), (K, P) -> (B, T, K), the expensive way: both are expanded to (K, B T, P)."""
    rows = frames.flatten(0, 1)
    cosines = F.cosine_similarity(
        rows.expand(len(embeddings), *rows.shape), embeddings[:, None].expand(-1, len(rows), -1), dim=-1
    )
    return cosines.T.unflatten(0, frames.shape[:2])


@dataclass(frozen=True)
class Row:
    """One variant: audio-hours per hour (quartiles of the rounds), ratio to the first, peak memory in gigabytes.

    ``utilisation``: floating-point operations per second of the model (backward counted as twice forward), as a share
    of what one large matrix product reaches on this device in the same precision.
    """

    name: str
    speed: tuple[float, float, float]
    ratio: tuple[float, float, float]
    gigabytes: float | None
    utilisation: float

    HEAD = (
        f"{'':22} {'hours of speech an hour':>26}  {'ratio to the first':>22}  {'960 h take':>11}  {'peak memory':>11}"
        f"  {'of a matmul':>11}"
    )

    def __str__(self) -> str:
        speed = "{1:.1f} ({0:.1f} to {2:.1f})".format(*self.speed)
        ratio = "{1:.2f} ({0:.2f} to {2:.2f})".format(*self.ratio)
        memory = f"{self.gigabytes:.2f} GB" if self.gigabytes is not None else "not known"
        return (
            f"{self.name:22} {speed:>26}  {ratio:>22}  {960 / self.speed[1]:>9.1f} h  {memory:>11}"
            f"  {100 * self.utilisation:>9.0f} %"
        )


def bench_distill(
    speech: Sequence[Utterance],
    size: str = "tiny",
    seconds_per_batch: float = 32,
    rounds: int = 5,
    steps: int | None = None,
) -> tuple[list[Row], list[str]]:
    """Training speed of the variants for the same Fbank student with both losses, in bf16 where that is faster; and
    sentences about the time of each part of a live step.

    Weights are random, which does not change the speed. ``steps`` per burst (default 2, on a GPU 10), ``rounds`` bursts
    per variant. The cache is built before the clock starts.
    """
    device = best_device()
    steps = steps or (2 if device.type == "cpu" else 10)
    teacher, student = new_pair(size)
    config = DistillConfig(default_pairs(student.config, teacher.config), discriminative_weight=1.0)
    with tempfile.TemporaryDirectory() as folder:
        task = DistillTask(student, teacher, config).to(device).train()
        cache = TargetCache(teacher, sorted(task.layers), speech, Path(folder)).build()
        by_length = Batches(speech, seconds_per_batch, cache=True)
        cached = Batches(speech, seconds_per_batch, cache=True, targets=cache)
        count = max(1, round(seconds_per_batch / np.mean([u.duration for u in speech])))
        variants = {
            "plain": (PlainTask(task), random_batches(speech, count)),
            "kdkit, targets live": (task, by_length.batch),
            "kdkit, targets cached": (task, cached.batch),
        }
        if device.type == "cuda":
            variants[WITHOUT_GRAPHS] = task, by_length.batch
        live = count_macs(teacher.config) + 3 * count_macs(student.config)
        work = dict.fromkeys(variants, live) | {"kdkit, targets cached": 3 * count_macs(student.config)}
        rows = _race(variants, work, device, rounds, steps, by_length.steps_per_epoch)
        where = where_time_goes(task, by_length.batch, device, steps)
        by_length.close()
        cached.close()
    return rows, where


def new_pair(size: str) -> tuple[Teacher, SpeechModel]:
    """A teacher with a codebook, and a deep & thin Fbank student, with random weights."""
    big, small, clusters = SIZES[size]
    torch.manual_seed(0)
    config: ModelConfig = preset(big)
    codebook = Codebook(config.dim, clusters, 64 if size == "tiny" else 256).requires_grad_(False).eval()
    model = SpeechModel(config).requires_grad_(False).eval()
    return Teacher(model.to(best_device()), codebook, f"{big}, random weights", {}), SpeechModel(
        preset(small)
    )


def random_batches(speech: Sequence[Utterance], count: int) -> Callable[[int], Batch]:
    """Random batches of ``count`` utterances, padded to the longest, read when they are needed."""

    def batch(step: int) -> Batch:
        chosen = np.random.default_rng(step).choice(len(speech), min(count, len(speech)), replace=False)
        some = [speech[i] for i in chosen]
        return collate([read_audio(u.audio) for u in some], some)

    return batch


def _race(
    variants: dict, work: dict[str, float], device: torch.device, rounds: int, steps: int, epoch: int
) -> list[Row]:
    """One row per variant of ``variants``; ``work``: their MACs per second of audio; ``epoch``: steps per epoch."""
    peak, autocast = matmul_flops(device), _autocast(device)
    speeds: dict[str, list[float]] = {name: [] for name in variants}
    peaks: dict[str, float | None] = dict.fromkeys(variants)
    next_step = dict.fromkeys(variants, 0)
    optimisers = {name: _optimiser(task) for name, (task, _) in variants.items()}
    ways = {name: _way(task, autocast, device, name) for name, (task, _) in variants.items()}
    # warm-up first: a graph is recorded when a shape occurs for the second time
    warm = 1 if device.type == "cpu" else 1 + math.ceil(3 * epoch / steps)
    bar = tqdm(total=len(variants) * (rounds + warm), desc="bench", unit="burst", leave=False)
    for turn in range(rounds + warm):
        for name, (_, batch_of) in variants.items():
            forget_peak(device)
            seconds, began = 0.0, time.perf_counter()
            for _ in range(steps):
                batch = batch_of(next_step[name])
                next_step[name] += 1
                seconds += batch.seconds
                loss = ways[name](batch)
                optimisers[name].step()
                optimisers[name].zero_grad(set_to_none=True)
            _value(loss)  # synchronises
            if turn >= warm:
                speeds[name].append(seconds / (time.perf_counter() - began))
            peaks[name] = max(filter(None, (peaks[name], peak_gigabytes(device))), default=None)
            bar.update()
    bar.close()
    for way in ways.values():
        if isinstance(way, Steps):
            way.close()
    first = np.array(next(iter(speeds.values())))
    return [
        Row(
            name,
            quartiles(s),
            quartiles(np.array(s) / first),
            peaks[name],
            2 * work[name] * float(np.median(s)) / peak,
        )
        for name, s in speeds.items()
    ]


def _way(task: nn.Module, autocast: torch.autocast, device: torch.device, name: str) -> Callable:
    """A function that computes a batch's gradients and returns the loss: as the trainer does, or without graphs."""
    if device.type == "cuda" and fast.wanted() and name not in ("plain", WITHOUT_GRAPHS):
        learned = {n: p for n, p in task.named_parameters() if p.requires_grad}
        return Steps(task, learned, torch.bfloat16 if use_bf16("auto", device) else None)

    def step(batch: Batch) -> Tensor:
        with autocast:
            loss, _ = task(batch.to(device))
        loss.backward()
        return loss

    return step


def _value(loss: Tensor | tuple) -> float:
    return (loss[0] if isinstance(loss, tuple) else loss).item()


def where_time_goes(
    task: DistillTask, batch_of: Callable[[int], Batch], device: torch.device, steps: int
) -> list[str]:
    """Sentences about ``steps`` live steps: the share of each part, with a sync after each; on a GPU also the time that
    it computes in a step without syncs.
    """
    autocast, optimiser, spent = _autocast(device), _optimiser(task), dict.fromkeys(PARTS, 0.0)
    now = 0.0

    def lap(part: str) -> None:
        nonlocal now
        if device.type == "cuda":
            torch.cuda.synchronize()
        before, now = now, time.perf_counter()
        spent[part] += now - before

    def step(number: int, lap: Callable[[str], None]) -> None:
        batch = batch_of(number).to(device)
        lap("speech")
        with autocast:
            loss, _ = task(batch)
        lap("student and losses")
        loss.backward()
        lap("backward")
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        lap("optimiser")

    hooks = [
        task.teacher.register_forward_pre_hook(lambda *_: lap("student and losses")),
        task.teacher.register_forward_hook(lambda *_: lap("teacher")),
    ]
    for turn in range(2):  # the first is the warm-up
        now, spent = time.perf_counter(), dict.fromkeys(PARTS, 0.0)
        for number in range(steps):
            step(turn * steps + number, lap)
    for hook in hooks:
        hook.remove()
    whole = sum(spent.values())
    shares = ", ".join(f"{part} {100 * some / whole:.0f} %" for part, some in spent.items())
    said = [f"a live step takes {1e3 * whole / steps:.0f} ms when each part is waited for: {shares}"]
    if device.type == "cuda":
        way = _way(task, autocast, device, "graphs")

        def by_graphs(number: int, _: Callable) -> None:
            way(batch_of(number))
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        kinds = {"a step without graphs": step} | ({"a step": by_graphs} if isinstance(way, Steps) else {})
        for name, one in kinds.items():

            def run(one: Callable = one) -> float:
                began = time.perf_counter()
                for number in range(steps):
                    one(number, lambda part: None)
                torch.cuda.synchronize()
                return time.perf_counter() - began

            for _ in range(3):  # records the graphs
                wall = run()
            with profile(activities=[ProfilerActivity.CUDA]) as seen:  # slower with the profiler
                run()
            busy = sum(event.self_device_time_total for event in seen.key_averages()) / 1e6
            said.append(
                f"the GPU computes {1e3 * busy / steps:.1f} ms of the {1e3 * wall / steps:.1f} ms of {name} that waits "
                "for nothing"
            )
        if isinstance(way, Steps):
            way.close()
    return said


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=use_bf16("auto", device))


def _optimiser(task: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], 1e-4, fused=True)
