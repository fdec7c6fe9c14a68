"""What a GPU does with a step of distillation, in tables: parts of data_scripts/gpu_campaign.sh, which runs them all.

    python data_scripts/gpu_campaign.py curve --out tables --minutes 30

Parts: ``kernels`` (each operation in several ways), ``curve`` (batch sizes, variants, memory), ``profile`` (where the
time of a step goes), ``training`` (whole trainings, reading the speech included), ``tiny`` (the same for tiny models),
``many`` (ten tiny fine-tunings at once). Speech is synthetic, joined to the lengths of LibriSpeech's utterances (half
of them 14 to 16 s), in FLAC.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np
import soundfile
import torch
from gpu_kernels import BF16, DRY, GPU, kernels, line, milliseconds, tried
from torch import nn
from torch.profiler import ProfilerActivity, profile

from kdkit.bench.distill import new_pair
from kdkit.bench.measure import forget_peak, matmul_flops, peak_gigabytes, quartiles
from kdkit.distill import DistillConfig, DistillTask, default_pairs
from kdkit.model.codebook import Codebook
from kdkit.model.costs import count_macs
from kdkit.model.speech_model import SpeechModel, preset
from kdkit.recognition.ctc import CTCModel, CTCTask
from kdkit.speech.audio import read_audio
from kdkit.speech.batches import Batches
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.manifest import Utterance
from kdkit.teachers.pretrain import FilterbankTask, Labels, PretrainTask
from kdkit.training.gradients import fixed_order
from kdkit.training.graphs import Steps
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig


def corpus(folder: Path, minutes: float, times: int, short: bool = False) -> list[Utterance]:
    """``minutes`` of speech in FLAC, each file listed ``times`` times, as if in a larger corpus."""
    speech = build_synthetic(minutes={"train": minutes}, progress=False)["train"]
    if short:
        return [replace(u, id=f"{u.id}-{n}") for n in range(times) for u in speech]
    rng, folder = np.random.default_rng(0), folder / "flac"
    folder.mkdir(parents=True, exist_ok=True)
    found, waves = [], iter([read_audio(u.audio).numpy() for u in speech])
    rest = np.zeros(0, np.float32)
    while True:
        wanted = rng.uniform(14, 16) if rng.random() < 0.5 else rng.uniform(2, 14)
        size = round(16_000 * wanted)
        while len(rest) < size:
            more = next(waves, None)
            if more is None:
                return [replace(u, id=f"{u.id}-{n}") for n in range(times) for u in found]
            rest = np.concatenate([rest, more])
        path = folder / f"{len(found)}.flac"
        soundfile.write(path, rest[:size], 16_000)
        found.append(Utterance(f"u{len(found)}", path, size / 16_000))
        rest = rest[size:]


class Runner:
    """One variant of a training step: ``plain`` (autocast, operation by operation), ``cast`` (:class:`Steps` without
    graphs) or ``graphs``.
    """

    def __init__(self, task: nn.Module, variant: str):
        self.task, self.variant = task.to(GPU).train(), variant
        self.parameters = {n: p for n, p in task.named_parameters() if p.requires_grad}
        self.optimiser = torch.optim.AdamW(self.parameters.values(), 1e-4, fused=True)
        self.steps = None
        if variant != "plain":
            self.steps = Steps(task, self.parameters, BF16, capture=variant == "graphs")

    def __call__(self, batch) -> torch.Tensor:
        with fixed_order(GPU):
            if self.steps is None:
                with torch.autocast(GPU.type, BF16):
                    loss, _ = self.task(batch.to(GPU))
                loss.backward()
            else:
                loss, _ = self.steps(batch)
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 5.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return loss

    def close(self) -> None:
        if self.steps is not None:
            self.steps.close()


def wait() -> None:
    if not DRY:
        torch.cuda.synchronize()


def pair_task(size: str) -> DistillTask:
    teacher, student = new_pair(size)
    return DistillTask(
        student,
        teacher,
        DistillConfig(default_pairs(student.config, teacher.config), discriminative_weight=1.0),
    )


def curve(args, size: str = "full") -> None:
    """Hours of speech an hour and memory, by seconds a batch and variant; batches of three shapes, interleaved."""
    speech = corpus(args.folder, args.minutes, 1 if size == "tiny" else 20, size == "tiny")
    peak = matmul_flops(GPU)
    line("variant", "s a batch", "ms a step", "h an hour", "quartiles", "", "of matmul", "GB", "ratio")
    size = "tiny" if DRY else size
    sizes = args.seconds or ([150, 600] if args.quick else [60, 150, 300, 600, 1200])
    for seconds in sizes:
        batches = Batches(speech, seconds, cache=True, workers=0)
        some = [batches.batch(number) for number in range(3)]
        first = None
        for variant in ("plain", "cast", "graphs"):
            runner = None
            try:
                runner = Runner(pair_task(size), variant)
                task = runner.task
                work = count_macs(task.teacher.config) + 3 * count_macs(task.student.config)
                forget_peak(GPU)
                for _ in range(3):
                    for batch in some:
                        loss = runner(batch)
                wait()
                speeds, took = [], []
                for _ in range(3 if args.quick else 7):
                    began = time.perf_counter()
                    for batch in some:
                        loss = runner(batch)
                    wait()
                    took.append((time.perf_counter() - began) / len(some))
                    speeds.append(sum(b.seconds for b in some) / len(some) / took[-1])
                low, middle, high = quartiles(speeds)
                first = first or middle
                memory = peak_gigabytes(GPU) or 0.0
                line(
                    variant, seconds, 1e3 * float(np.median(took)), middle, f"{low:.0f}-{high:.0f}",
                    f"loss {loss.item():.3f}", f"{200 * work * middle / peak:.1f} %", memory, middle / first,
                )  # fmt: skip
            except Exception as error:
                line(variant, seconds, "failed", repr(error)[:200])
            finally:
                if runner is not None:
                    runner.close()
                del runner
                torch.cuda.empty_cache()


def part_times(args) -> None:
    """Where the time of a step goes: parts on their own as graphs, then the operations of a step by their time."""
    speech = corpus(args.folder, args.minutes, 20)
    batches = Batches(speech, 20 if DRY else 150, cache=True, workers=0)
    batch = next(b for b in map(batches.batch, range(99)) if b.waves.shape[1] > 210_000).to(GPU)
    print(
        f"one batch: {len(batch)} utterances, {batch.waves.shape[1] / 16_000:.1f} s wide, {batch.seconds:.0f} s"
    )
    runner = Runner(pair_task("tiny" if DRY else "full"), "graphs")
    task, steps = runner.task, runner.steps
    for _ in range(3):
        runner(batch)
    wait()
    line("whole step", milliseconds(lambda: runner(batch)))
    for recorded in steps.graphs.values():
        line("graph of loss and gradients", milliseconds(recorded.graph.replay))
    line("clipping and optimiser", milliseconds(lambda: optimise(runner, steps)))
    quick = steps.twins["teacher"]
    tried("teacher", lambda: quick(batch.waves, batch.lengths).last)
    tried("  its front-end", lambda: quick.front_end(batch.waves, batch.lengths))
    tried("  its CNN", lambda: quick.front_end.cnn(batch.waves, batch.lengths))
    x = quick.front_end(batch.waves, batch.lengths)
    tried("  its positions", lambda: quick.encoder.positions(x))
    inputs = task.prepare(batch)
    from torch.nn.utils.stateless import _reparametrize_module

    def student(backward: bool, part: str):
        leaves = steps._leaves()
        with _reparametrize_module(task, leaves), steps._quick():
            if part == "front-end":
                y = task.student.front_end(batch.waves, batch.lengths)
            elif part == "student":
                y = torch.stack(task.student(batch.waves, batch.lengths).hidden).sum()
            else:
                y = task.compute(inputs)[0]
        if backward:
            torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y), allow_unused=True)

    for part in ("front-end", "student", "everything"):
        tried(f"{part}, forward", lambda part=part: student(False, part))
        tried(f"{part}, forward and backward", lambda part=part: student(True, part))
    with profile(activities=[ProfilerActivity.CPU if DRY else ProfilerActivity.CUDA]) as seen:
        for _ in range(3):
            runner(batch)
        wait()
    events = sorted(seen.key_averages(), key=lambda e: -e.self_device_time_total)
    whole = sum(e.self_device_time_total for e in events)
    print(f"\n{whole / 3e3:.2f} ms of operations a step, {sum(e.count for e in events) / 3:.0f} of them")
    for e in events[:60]:
        print(f"{e.self_device_time_total / 3e3:8.3f} ms {e.count / 3:7.1f} x  {e.key[:150]}")
    runner.close()


def optimise(runner: Runner, steps: Steps) -> None:
    for name, parameter in runner.parameters.items():
        parameter.grad = steps.gradients[name]
    torch.nn.utils.clip_grad_norm_(list(runner.parameters.values()), 5.0)
    runner.optimiser.step()
    runner.optimiser.zero_grad(set_to_none=True)


def second_half(
    name: str,
    make: Callable[[], nn.Module],
    speech: list[Utterance],
    seconds: float,
    folder: Path,
    steps: int,
    graphs: bool = True,
    **settings,
) -> tuple[float, float, float, float]:
    """A training's hours of speech an hour and steps a second in its second half, the first being spent on what is done
    once for a shape; how many seconds all of it took; its last loss.
    """
    batches = Batches(speech, seconds, **settings)
    seen: list[tuple[int, float]] = []
    recipe = TrainConfig(steps=steps, lr=1e-4, log_every=max(2, steps // 20), save_every=10**6, graphs=graphs)

    def watch(rows: list[dict]) -> bool:
        seen.append((rows[-1]["step"], time.perf_counter()))
        return False

    began = time.perf_counter()
    rows = train(make(), batches, recipe, folder, resume=False, title=name, watch=watch)
    took = time.perf_counter() - began
    (step, then), (last, now) = seen[len(seen) // 2], seen[-1]
    rate = (last - step) / (now - then)
    speed = batches.seconds / batches.steps_per_epoch * rate
    batches.close()
    return speed, rate, took, rows[-1]["loss"]


def speed_of_training(
    name: str, make: Callable[[], nn.Module], speech, seconds: float, args, steps: int, **settings
) -> None:
    """With graphs, and a quarter of the steps without."""
    for graphs in (True, False):
        title = f"{name}, {seconds} s, {'graphs' if graphs else 'plain'}"
        try:
            folder, some = args.folder / title.replace(", ", "-"), steps if graphs or DRY else steps // 4
            speed, rate, took, loss = second_half(
                title, make, speech, seconds, folder, some, graphs, **settings
            )
            line(title, speed, f"{rate:.1f} st/s", f"{took:.0f} s", f"loss {loss:.3f}")
        except Exception:
            line(title, "failed")
            traceback.print_exc()


def training(args) -> None:
    """Whole trainings by train(), speech read from FLAC."""
    speech = corpus(args.folder, args.minutes, 100)
    line("second half of a training", "h an hour", "", "all took")
    for seconds, steps in ((20, 10),) if DRY else ((150, 200), (600, 100)):
        make = lambda: pair_task("tiny" if DRY else "full")  # noqa: E731
        speed_of_training("full", make, speech, seconds, args, steps=steps)


def recogniser() -> nn.Module:
    return CTCTask(CTCModel(SpeechModel(preset("tiny-sw-fbank"))), speeds=(0.9, 1.0, 1.1))


def tiny(args) -> None:
    """Tiny models: distillation, pre-training, fine-tuning, in batches of whole utterances."""
    speech = corpus(args.folder, min(args.minutes, 20), 1, True)
    line("second half of a training", "h an hour", "", "all took")
    labels = Labels(
        {u.id: torch.randint(100, (round(u.duration * 50) + 9,)).short() for u in speech}, 100, "none"
    )

    def pretraining() -> nn.Module:
        return PretrainTask(
            SpeechModel(preset("tiny-teacher")), Codebook(160, 100, 64), labels, visible_weight=1.0
        )

    def filterbank() -> nn.Module:
        return FilterbankTask(
            SpeechModel(preset("tiny-teacher")), torch.full((80,), 6.0), torch.full((80,), 3.0)
        )

    for seconds in (20,) if DRY else (64,) if args.quick else (64, 300):
        for name, make in {
            "distilling": lambda: pair_task("tiny"),
            "ctc": recogniser,
            "pretraining": pretraining,
            "filterbank": filterbank,
        }.items():
            steps = 10 if DRY else 600 if args.quick else 1500
            speed_of_training(name, make, speech, seconds, args, steps=steps, cache=True)


def fine_tuned(number: int, folder: Path, minutes: float, steps: int) -> tuple[float, float, float, float]:
    """One of ``many``, in a process of its own."""
    torch.set_num_threads(1)
    speech = corpus(folder, minutes, 1, True)
    return second_half(
        f"fine-tuning {number}", recogniser, speech, 16, folder / f"many-{number}", steps, cache=True
    )


def many(args) -> None:
    """Tiny models fine-tuned side by side on one GPU, each by a process of its own: how much faster than one alone?"""
    minutes, steps = min(args.minutes, 10), 10 if DRY else 1200 if args.quick else 3000
    corpus(args.folder, minutes, 1, True)  # for all of them
    line("second halves together", "h an hour", "st/s", "all took", "ratio")
    first = None
    for title, count, sharing in (
        ("one", 1, nullcontext()),
        ("ten through MPS", 10, by_mps(args.folder / "mps")),
        ("ten, no MPS", 10, nullcontext()),
    ):
        if DRY:
            count, sharing = min(count, 2), nullcontext()
        try:
            with sharing, ProcessPoolExecutor(count, get_context("spawn")) as pool:
                run = partial(fine_tuned, folder=args.folder, minutes=minutes, steps=steps)
                found = [*pool.map(run, range(count))]
            speed, rate, *_ = map(sum, zip(*found, strict=True))
            first = first or speed
            line(title, speed, f"{rate:.1f}", f"{max(took for *_, took, _ in found):.0f} s", speed / first)
        except Exception as error:
            line(title, "failed", repr(error)[:150])


@contextmanager
def by_mps(folder: Path) -> Iterator[None]:
    """Programs that start within share the GPU through NVIDIA's Multi-Process Service: their kernels run side by side;
    otherwise programs take turns.
    """
    places = {f"CUDA_MPS_{name}_DIRECTORY": str(folder / name.lower()) for name in ("PIPE", "LOG")}
    for place in places.values():
        Path(place).mkdir(parents=True, exist_ok=True)
    with patch.dict(os.environ, places):
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True)
        try:
            yield
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, timeout=30)


PARTS = {
    "kernels": kernels,
    "curve": curve,
    "profile": part_times,
    "training": training,
    "tiny": tiny,
    "many": many,
}
PARTS["tinycurve"] = lambda args: curve(args, "tiny")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=[*PARTS], nargs="+")
    parser.add_argument("--folder", type=Path, default=Path("gpu_campaign"), help="for speech and runs")
    parser.add_argument("--minutes", type=float, default=30, help="of speech to make")
    parser.add_argument("--seconds", type=int, nargs="*", help="of the batches of curve")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    for part in given.part:
        print(f"\n== {part}: {(PARTS[part].__doc__ or '').strip()}", flush=True)
        try:
            PARTS[part](given)
        except Exception:
            traceback.print_exc()
