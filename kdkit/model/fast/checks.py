"""Is every kernel right on this card? Each is compared with its plain twin, on small random tensors.

A kernel that fails is not used in this process, and a warning says so: slower beats wrong. Tests run the same
comparisons, on machines without a GPU in Triton's interpreter.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from kdkit.model.fast import wanted

# kernels with matrix products, for GPUs of 2020 (Ampere) or later: on older ones Triton's compiler may end the process
MULTIPLYING = ("windows", "weight_gradient")
AVAILABLE = find_spec("triton") is not None  # there are no wheels for some systems
# by the name of the kernel; each raises where it differs from its twin
CHECKS: dict[str, Callable[..., None]] = {}


def check(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a kernel's comparison: a function of device, low-precision dtype, and the twin that :func:`trusted` is
    given.
    """

    def register(compares: Callable[..., None]) -> Callable[..., None]:
        CHECKS[name] = compares
        return compares

    return register


def trusted(name: str, *twin: Callable) -> bool:
    """Are kernels :func:`wanted`, and has ``name`` (a key of ``CHECKS``) the answers of its plain twin on this GPU?

    ``twin``: the plain function, where it stands in a module that imports the kernel.
    """
    return wanted() and _right(name, *twin)


@cache
def _right(name: str, *twin: Callable) -> bool:
    """Tried once in a process."""
    recent = torch.cuda.get_device_capability() >= (8, 0)
    if (name in MULTIPLYING and not recent) or (name != "segments" and not _has_triton()):
        return False
    low = torch.bfloat16 if recent else torch.float16
    try:
        with (
            torch.random.fork_rng(devices=[torch.cuda.current_device()]),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cuda", enabled=False),
        ):
            torch.manual_seed(0)
            CHECKS[name](torch.device("cuda"), low, *twin)
    except Exception as error:  # whatever a compiler, a driver or a comparison says
        said = (str(error) or repr(error)).splitlines()[0]
        warnings.warn(
            f"kernel {name!r} does not work on this GPU, the plain way is taken: {said}", stacklevel=2
        )
        return False
    return True


@cache
def _has_triton() -> bool:
    if not AVAILABLE:
        warnings.warn(
            "Triton is not installed: the GPU does without kdkit's kernels, and is slower", stacklevel=2
        )
    return AVAILABLE


def compare(found: Tensor, expected: Tensor, allowed: float) -> None:
    """Raises when their difference is more than ``allowed`` of the expected, or anything is not finite."""
    if found.shape != expected.shape or not found.isfinite().all():
        raise AssertionError(f"shape {tuple(found.shape)} for {tuple(expected.shape)}, or not finite")
    apart = ((found.double() - expected.double()).norm() / expected.double().norm()).item()
    if not apart < allowed:
        raise AssertionError(f"{apart:.1e} apart, {allowed:.0e} allowed")
