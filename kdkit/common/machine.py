"""The machine that a run was made on: processor, GPU, versions, precision."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import psutil

from kdkit.common.parallel import cores

if TYPE_CHECKING:
    import torch


def machine() -> dict[str, object]:
    """Processor, cores, GPU, system and versions of this machine."""
    versions = {}
    for name in ("kdkit", "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "gpu": _gpu("name"),
        "system": platform.platform(),
        "python": platform.python_version(),
    } | versions


def best_device() -> torch.device:
    """The first GPU, or the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_bf16(precision: str, device: torch.device) -> bool:
    """True for precision "bf16", and for "auto" on a GPU or CPU that multiplies bf16 faster than float32."""
    import torch

    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    fast = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # older versions of torch lack one or both
    return any(getattr(torch.cpu, name, bool)() for name in fast)


def training_precision(precision: str, device: torch.device) -> str:
    """ "fp32", "bf16" or "fp16": what training computes in for the setting ``precision``.

    "auto" is bf16 where :func:`use_bf16` says so, fp16 with loss scaling on GPUs without bf16 (P100, V100, T4:
    compute capability 6.0, 7.0 and 7.5), and fp32 elsewhere.
    """
    import torch

    if precision != "auto":
        return precision
    if use_bf16("auto", device):
        return "bf16"
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    return "fp16" if capability == (6, 0) or capability >= (7, 0) else "fp32"


def environment() -> dict[str, object]:
    """:func:`machine`, and what decides how torch computes there: device, precision, threads.

    ``memory_gb`` is the machine's, ``gpu_driver`` the version of the driver, ``precision`` what training with "auto"
    takes, "bf16", "fp16" or "fp32". Loads torch.
    """
    import torch

    device = best_device()
    return machine() | {
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu_driver": _gpu("driver_version"),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "device": device.type,
        "precision": training_precision("auto", device),
        "threads": torch.get_num_threads(),
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _gpu(what: str) -> str | None:
    """A field of nvidia-smi for the first GPU; None without one."""
    try:
        query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.splitlines()[0].strip() if answer.strip() else None
