"""Operations of a step of distillation on a GPU, each in several ways: a part of data_scripts/gpu_campaign.sh.

Without a GPU everything is done once, with tiny models: to see that the script runs.
"""

# ruff: noqa: B023  # functions made in a loop are called in its turn
from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from kdkit.bench.measure import matmul_flops
from kdkit.common.machine import best_device
from kdkit.model.fast.attention import GPU_KERNELS, segments
from kdkit.model.fast.cnn import FrozenCNN
from kdkit.model.fast.frozen import hastened
from kdkit.model.fast.positions import FrozenPositions
from kdkit.model.fast.windows import windows_product
from kdkit.model.speech_model import SpeechModel, preset
from kdkit.speech.frames import num_frames
from kdkit.training.gradients import fixed_order

BF16 = torch.bfloat16
GPU = best_device()
DRY = GPU.type == "cpu"


def milliseconds(run: Callable[[], object]) -> float:
    """Median time of the GPU for ``run``, after three warm-ups."""
    if DRY:
        began = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - began)
    for _ in range(3):
        run()
    times = []
    for _ in range(10):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return float(np.median(times))


def replayed(run: Callable[[], object]) -> float:
    """:func:`milliseconds` of a CUDA graph of ``run``: without the time that the CPU takes to say what to do."""
    if DRY:
        return milliseconds(run)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return milliseconds(graph.replay)


def line(name: str, *values: object) -> None:
    print(f"{name:46}", *(f"{v:10.3f}" if isinstance(v, float) else f"{v!s:>10}" for v in values), flush=True)


def tried(name: str, run: Callable[[], object]) -> None:
    try:
        line(name, replayed(run))
    except Exception as error:
        line(name, "failed", str(error).splitlines()[0][:150] if str(error) else repr(error))


def kernels(args) -> None:
    """Operations of the teacher (150 s: 10 utterances of 15 s) and of the student, each in several ways, in ms."""
    batch, samples, big, small = (
        (2, 32_000, "tiny-teacher", "tiny-dt-fbank") if DRY else (10, 240_000, "hubert-base", "dt-fbank")
    )
    total, first_rows = num_frames(samples), (samples - 10) // 5 + 1
    torch.manual_seed(0)
    print("a product of 8192 x 8192 x 8192 in bf16, TFLOP/s", matmul_flops(GPU) / 1e12)
    large = torch.empty(2**20 if DRY else 2**30, dtype=torch.uint8, device=GPU)
    line("copying, TB/s read and written", 2 * len(large) / milliseconds(lambda: large.clone()) / 1e9)
    model = SpeechModel(preset(big)).to(GPU).eval().requires_grad_(False)
    cnn, lengths = model.front_end.cnn, torch.full((batch,), samples, device=GPU)
    lengths[1::2] -= 8_000
    waves = 0.1 * torch.randn(batch, samples, device=GPU)

    def autocast(run: Callable) -> Callable:
        def inside():
            with torch.no_grad(), torch.autocast(GPU.type, BF16):
                return run()

        return inside

    tried("CNN, plain, autocast", autocast(lambda: cnn(waves, lengths)))
    fast = FrozenCNN(cnn, BF16)
    tried("CNN, frozen", lambda: fast(waves, lengths))
    tried("  folding of the first layer", lambda: fast.folded(waves, lengths, first_rows))
    weight, bias = fast.folded(waves, lengths, first_rows)
    padded = F.pad(waves, (0, 16))
    tried("  first layer", lambda: windows_product(padded, weight, bias, first_rows, 5, True, BF16))
    frames = first_rows
    for layer, (conv, low) in enumerate(zip(cnn.convs[1:], fast.others, strict=True), 2):
        kernel, inputs = conv.kernel_size[0], conv.in_channels
        x = torch.randn(batch, frames, inputs, device=GPU, dtype=BF16).transpose(1, 2)
        first, last, weight = x.contiguous(), x[:, :, None], low.weight[:, :, None]
        frames = (frames - kernel) // 2 + 1
        flop = 2 * batch * frames * conv.weight.numel()
        for name, run in {
            "(B, C, T)": lambda: F.conv1d(first, low.weight.contiguous(), stride=2),
            "channels last": lambda: F.conv2d(last, weight, stride=(1, 2)),
            "channels last and GELU": lambda: F.gelu(F.conv2d(last, weight, stride=(1, 2))),
        }.items():
            try:
                with fixed_order(GPU):
                    took = replayed(run)
                line(f"  layer {layer}: {name}", took, f"{flop / took / 1e9:.0f} TFLOP/s")
            except Exception as error:
                line(f"  layer {layer}: {name}", "failed", repr(error)[:150])
    wide, narrow = model.config, preset(small)
    x = torch.randn(batch, total, wide.dim, device=GPU)
    positions, low = model.encoder.positions, x.to(BF16)
    frozen = FrozenPositions(positions, BF16)
    tried("positions of the teacher, plain", autocast(lambda: positions(x)))
    tried("positions of the teacher, frozen", lambda: frozen(low))
    conv = positions.conv
    w, b, half = conv.weight.to(BF16), conv.bias.to(BF16), wide.pos_kernel // 2
    tried(
        "positions of the teacher, cuDNN",
        lambda: F.conv1d(low.transpose(1, 2), w, b, padding=half, groups=16),
    )
    student = SpeechModel(narrow).to(GPU)
    low = torch.randn(batch, total, narrow.dim, device=GPU, dtype=BF16, requires_grad=True)

    def both(run: Callable, *inputs) -> Callable:
        def inside():
            y = run()
            return torch.autograd.grad(y, inputs, torch.ones_like(y))

        return inside

    place = student.encoder.positions
    tried("positions of the student, forward", lambda: place(low))
    tried("positions of the student, both ways", both(lambda: place(low), low, *place.parameters()))
    mask = (
        torch.arange(total, device=GPU)
        < torch.where(torch.arange(batch, device=GPU) % 2 == 0, total, total - total // 30)[:, None]
    )
    bounds, keys = segments(mask), mask[:, None, None]
    op = torch.ops.aten._flash_attention_forward
    for some in (wide, narrow):
        width, heads = some.dim // some.heads, some.heads
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
