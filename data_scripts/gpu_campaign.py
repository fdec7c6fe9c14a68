"""What a GPU does with a step of distillation, in tables: parts of data_scripts/gpu_campaign.sh, which runs them all.

    python data_scripts/gpu_campaign.py curve --out tables --minutes 30

Parts: ``kernels`` (each operation in several ways), ``curve`` (batch sizes, variants, memory), ``profile`` (where the
time of a step goes), ``training`` (whole trainings, reading the speech included), ``tiny`` (the same for tiny models).
Speech is synthetic, joined to the lengths of LibriSpeech's utterances (half of them 14 to 16 s), in FLAC.
"""

# ruff: noqa: B023  # functions made in a loop are called in its turn
from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

from kdkit.audio import read_audio
from kdkit.batches import Batches
from kdkit.bench.distill import new_pair
from kdkit.bench.measure import matmul_flops, quartiles
from kdkit.codebook import Codebook
from kdkit.corpora.synthetic import build_synthetic
from kdkit.ctc import CTCModel, CTCTask
from kdkit.distill import DistillConfig, DistillTask, default_pairs
from kdkit.encoder import GPU_KERNELS, segments
from kdkit.fast.cnn import FrozenCNN
from kdkit.fast.frozen import FrozenPositions, hastened
from kdkit.fast.windows import windows_product
from kdkit.gradients import fixed_order
from kdkit.graphs import Steps
from kdkit.manifest import Utterance
from kdkit.models import SpeechModel, preset
from kdkit.pretrain import FilterbankTask, Labels, PretrainTask
from kdkit.structures import count_macs
from kdkit.training import TrainConfig, train

BF16 = torch.bfloat16
GPU = torch.device("cuda")


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


def milliseconds(run: Callable[[], object], repeats: int = 10) -> float:
    """Median time of the GPU for ``run``, after three warm-ups."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return float(np.median(times))


def replayed(run: Callable[[], object], repeats: int = 10) -> float:
    """:func:`milliseconds` of a CUDA graph of ``run``: without the time that the CPU takes to say what to do."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return milliseconds(graph.replay, repeats)


def line(name: str, *values: object) -> None:
    print(f"{name:46}", *(f"{v:10.3f}" if isinstance(v, float) else f"{v!s:>10}" for v in values), flush=True)


def tried(name: str, run: Callable[[], object], how: Callable = replayed) -> None:
    try:
        line(name, how(run))
    except Exception as error:
        line(name, "failed", str(error).splitlines()[0][:150] if str(error) else repr(error))


def kernels(args) -> None:
    """Operations of the teacher (150 s: 10 utterances of 15 s) and of the student, each in several ways, in ms."""
    batch, total = 10, 749
    torch.manual_seed(0)
    print("a product of 8192 x 8192 x 8192 in bf16, TFLOP/s", matmul_flops(GPU) / 1e12)
    big = torch.empty(2**30, dtype=torch.uint8, device=GPU)
    line("copying, TB/s read and written", 2 * 2**30 / milliseconds(lambda: big.clone()) / 1e9)
    model = SpeechModel(preset("hubert-base")).to(GPU).eval().requires_grad_(False)
    cnn, lengths = model.front_end.cnn, torch.full((batch,), 240_000, device=GPU)
    lengths[1::2] -= 8_000
    waves = 0.1 * torch.randn(batch, 240_000, device=GPU)

    def autocast(run: Callable) -> Callable:
        def inside():
            with torch.no_grad(), torch.autocast("cuda", BF16):
                return run()

        return inside

    tried("CNN, plain, autocast", autocast(lambda: cnn(waves, lengths)))
    fast = FrozenCNN(cnn, BF16)
    tried("CNN, frozen", lambda: fast(waves, lengths))
    tried("  folding of the first layer", lambda: fast.folded(waves, lengths, 47_999))
    weight, bias = fast.folded(waves, lengths, 47_999)
    padded = F.pad(waves, (0, 16))
    tried("  first layer", lambda: windows_product(padded, weight, bias, 47_999, 5, True, BF16))
    frames, kernel = 47_999, 3
    for layer, conv in enumerate(cnn.convs[1:], 1):
        kernel = conv.kernel_size[0]
        x = torch.randn(batch, frames, 512, device=GPU, dtype=BF16)
        first, last = x.transpose(1, 2).contiguous(), x.transpose(1, 2)[:, :, None]
        rows = (frames - kernel) // 2 + 1
        w, low = fast.weights[layer - 1], conv.weight.to(BF16)
        flop = 2 * batch * rows * kernel * 512 * 512
        for name, run in {
            "windows and GELU": lambda: windows_product(
                x.flatten(1), w, fast.biases[layer - 1], rows, 1024, True, BF16
            ),
            "windows": lambda: windows_product(x.flatten(1), w, None, rows, 1024, False, BF16),
            "cuDNN (B, C, T)": lambda: F.conv1d(first, low, stride=2),
            "cuDNN channels last": lambda: F.conv2d(
                last, low[:, :, None].contiguous(memory_format=torch.channels_last), stride=(1, 2)
            ),
        }.items():
            try:
                took = replayed(run)
                line(f"  layer {layer + 1}: {name}", took, f"{flop / took / 1e9:.0f} TFLOP/s")
            except Exception as error:
                line(f"  layer {layer + 1}: {name}", "failed", repr(error)[:150])
        frames = rows
    x = torch.randn(batch, total, 768, device=GPU)
    positions, low = model.encoder.positions, x.to(BF16)
    frozen = FrozenPositions(positions, BF16)
    tried("positions 768, plain", autocast(lambda: positions(x)))
    tried("positions 768, frozen", lambda: frozen(low))
    conv = positions.conv
    w, b = conv.weight.to(BF16), conv.bias.to(BF16)
    tried("positions 768, cuDNN", lambda: F.conv1d(low.transpose(1, 2), w, b, padding=64, groups=16))
    student = SpeechModel(preset("dt-fbank")).to(GPU)
    small = torch.randn(batch, total, 480, device=GPU, dtype=BF16, requires_grad=True)

    def both(run: Callable, *inputs) -> Callable:
        def inside():
            y = run()
            return torch.autograd.grad(y, inputs, torch.ones_like(y))

        return inside

    place = student.encoder.positions
    tried("positions 480, forward", lambda: place(small))
    tried("positions 480, both ways", both(lambda: place(small), small, *place.parameters()))
    mask = (
        torch.arange(total, device=GPU)
        < torch.where(torch.arange(batch, device=GPU) % 2 == 0, total, 724)[:, None]
    )
    bounds, keys = segments(mask), mask[:, None, None]
    op = torch.ops.aten._flash_attention_forward
    for width, heads in ((64, 12), (40, 12)):
        qkv = torch.randn(batch, total, 3, heads, width, device=GPU, dtype=BF16, requires_grad=True)

        def sequences(qkv=qkv):
            q, k, v = (some.flatten(0, 1) for some in qkv.unbind(2))
            return op(q, k, v, bounds, bounds, total, total, 0.0, False, False)[0]

        def sdpa(with_mask: bool, dropout: float = 0.0, kernels=GPU_KERNELS, qkv=qkv):
            q, k, v = (some.transpose(1, 2) for some in qkv.unbind(2))
            with torch.nn.attention.sdpa_kernel(kernels):
                return F.scaled_dot_product_attention(q, k, v, keys if with_mask else None, dropout)

        cudnn = [torch.nn.attention.SDPBackend.CUDNN_ATTENTION]
        for name, run in {
            "sequences": sequences,
            "mask": lambda: sdpa(True),
            "no mask": lambda: sdpa(False),
            "cuDNN, no mask": lambda: sdpa(False, kernels=cudnn),
            "cuDNN, mask": lambda: sdpa(True, kernels=cudnn),
        }.items():
            tried(f"attention {width}, {name}, forward", torch.no_grad()(run))
            tried(f"attention {width}, {name}, both ways", both(run, qkv))
            with fixed_order(GPU):
                tried(f"attention {width}, {name}, both, fixed order", both(run, qkv))
    states = hastened(model, BF16)
    tried("teacher, plain, autocast", autocast(lambda: model(waves, lengths).last))
    tried("teacher, hastened", lambda: states(waves, lengths).last)
    found, expected = states(waves, lengths), autocast(lambda: model(waves, lengths))()
    exact = model(waves, lengths)
    for name, some in (("hastened", found), ("autocast", expected)):
        apart = [
            ((a - b)[exact.mask].norm() / b[exact.mask].norm()).item()
            for a, b in zip(some.hidden, exact.hidden, strict=True)
        ]
        print(
            f"{name}: apart from float32 by {apart[0]:.4f} (H^0), {apart[6]:.4f} (H^6), {apart[-1]:.4f} (H^12)"
        )


class Runner:
    """One variant of a training step: ``plain`` (autocast, operation by operation), ``cast`` (:class:`Steps` without
    graphs) or ``graphs``."""

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
                with torch.autocast("cuda", BF16):
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


def pair_task(size: str) -> DistillTask:
    teacher, student = new_pair(size)
    return DistillTask(
        student,
        teacher,
        DistillConfig(default_pairs(student.config, teacher.config), discriminative_weight=1.0),
    )


def curve(args, size: str = "full") -> None:
    """Hours of speech an hour and memory, by seconds a batch and variant; batches of three shapes, interleaved."""
    speech, peak = (
        corpus(args.folder, args.minutes, 1 if size == "tiny" else 20, size == "tiny"),
        matmul_flops(GPU),
    )
    line("variant", "s a batch", "ms a step", "h an hour", "quartiles", "", "of matmul", "GB", "ratio")
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
                torch.cuda.reset_peak_memory_stats()
                for _ in range(3):
                    for batch in some:
                        loss = runner(batch)
                torch.cuda.synchronize()
                speeds, took = [], []
                for _ in range(3 if args.quick else 7):
                    began = time.perf_counter()
                    for batch in some:
                        loss = runner(batch)
                    torch.cuda.synchronize()
                    took.append((time.perf_counter() - began) / len(some))
                    speeds.append(sum(b.seconds for b in some) / len(some) / took[-1])
                low, middle, high = quartiles(speeds)
                first = first or middle
                memory = torch.cuda.max_memory_allocated() / 1e9
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
    batches = Batches(speech, 150, cache=True, workers=0)
    batch = next(b for b in map(batches.batch, range(30)) if b.waves.shape[1] > 210_000).to(GPU)
    print(
        f"one batch: {len(batch)} utterances, {batch.waves.shape[1] / 16_000:.1f} s wide, {batch.seconds:.0f} s"
    )
    runner = Runner(pair_task("full"), "graphs")
    task, steps = runner.task, runner.steps
    for _ in range(3):
        runner(batch)
    torch.cuda.synchronize()
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
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(3):
            runner(batch)
        torch.cuda.synchronize()
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


def speed_of_training(
    name: str, make: Callable[[], nn.Module], speech, seconds: float, args, steps: int = 60, **settings
) -> None:
    """Of the second half of a training; the first includes what is done once for a shape."""
    for graphs in (True, False):
        try:
            batches, seen = Batches(speech, seconds, **settings), []
            recipe = TrainConfig(steps=steps, lr=1e-4, log_every=10, save_every=10**6, graphs=graphs)
            began = time.perf_counter()

            def watch(rows: list[dict]) -> bool:
                seen.append((rows[-1]["step"], time.perf_counter()))
                return False

            folder = args.folder / f"{name}-{graphs}-{seconds}"
            rows = train(make(), batches, recipe, folder, resume=False, title=name, watch=watch)
            took = time.perf_counter() - began
            (step, then), (last, now) = seen[len(seen) // 2], seen[-1]
            speed = batches.seconds / batches.steps_per_epoch * (last - step) / (now - then)
            line(
                f"{name}, {seconds} s, {'graphs' if graphs else 'plain'}", speed,
                f"{(last - step) / (now - then):.1f} st/s", f"{took:.0f} s", f"loss {rows[-1]['loss']:.3f}",
            )  # fmt: skip
            batches.close()
        except Exception:
            line(f"{name}, {seconds} s, graphs {graphs}", "failed")
            traceback.print_exc()


def training(args) -> None:
    """Whole trainings by train(), speech read from FLAC: hours an hour over all steps, the first ones included."""
    speech = corpus(args.folder, args.minutes, 100)
    line("second half of a training", "h an hour", "", "all took")
    for seconds, steps in ((150, 200), (600, 100)):
        speed_of_training("full", lambda: pair_task("full"), speech, seconds, args, steps=steps)


def tiny(args) -> None:
    """Tiny models: distillation, pre-training, fine-tuning, in batches of whole utterances."""
    speech = corpus(args.folder, min(args.minutes, 20), 10, True)
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

    def recogniser() -> nn.Module:
        return CTCTask(CTCModel(SpeechModel(preset("tiny-dt-fbank"))), speeds=(0.9, 1.0, 1.1))

    for seconds in (64, 300):
        for name, make in {
            "distilling": lambda: pair_task("tiny"),
            "pretraining": pretraining,
            "filterbank": filterbank,
            "ctc": recogniser,
        }.items():
            speed_of_training(name, make, speech, seconds, args, steps=100 if args.quick else 300, cache=True)


PARTS = {"kernels": kernels, "curve": curve, "profile": part_times, "training": training, "tiny": tiny}
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
