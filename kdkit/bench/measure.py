"""Measures of the benchmarks: quartiles, peak memory, and the speed of a large matrix product."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from kdkit.common.machine import use_bf16


def quartiles(values) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    return tuple(np.quantile(values, [0.25, 0.5, 0.75]).tolist())


def matmul_flops(device: torch.device, repeats: int = 5) -> float:
    """Floating-point operations per second of a large matrix product, in the precision of training on ``device``."""
    dtype = torch.bfloat16 if use_bf16("auto", device) else torch.float32
    # on a GPU, launching a smaller one takes longer than computing it
    size = 2048 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(repeats + 1):
        began = time.perf_counter()
        (a @ a).sum().item()  # .item() waits for the device
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def forget_peak(device: torch.device) -> float | None:
    """Resets the memory peak (on CPUs under Linux only). Returns the gigabytes in use now, or None."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e9
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return peak_gigabytes(device)


def peak_gigabytes(device: torch.device) -> float | None:
    """Peak since :func:`forget_peak` in gigabytes: of the GPU, or of the process; None where it cannot be measured."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None
