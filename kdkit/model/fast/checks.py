"""Is every kernel right on this card? Each is compared with its plain twin, on small random tensors.

A kernel that fails is not used in this process, and a warning says so: slower beats wrong. Tests run the same
comparisons, on machines without a GPU in Triton's interpreter.
"""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from kdkit.model.fast import ctc, positions, rows, wanted, windows
from kdkit.speech.text import VOCABULARY


def trusted(name: str) -> bool:
    """Are kernels :func:`wanted`, and has ``name`` (a key of ``CHECKS``) the answers of its plain twin here?"""
    return wanted() and windows.AVAILABLE and _right(name)


@cache
def _right(name: str) -> bool:
    """Tried once in a process."""
    low = torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    try:
        with (
            torch.random.fork_rng(devices=[torch.cuda.current_device()]),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cuda", enabled=False),
        ):
            torch.manual_seed(0)
            CHECKS[name](torch.device("cuda"), low)
    except Exception as error:  # whatever a compiler, a driver or a comparison says
        said = (str(error) or repr(error)).splitlines()[0]
        warnings.warn(
            f"kernel {name!r} does not work on this GPU, the plain way is taken: {said}", stacklevel=2
        )
        return False
    return True


def check_windows(device: torch.device, low: torch.dtype) -> None:
    for dtype, many, groups, size, columns, outputs, step, gelu in (
        (torch.float32, 3, 1, 16, 40, 50, 5, True),
        (torch.float32, 2, 2, 16, 32, 33, 5, False),
        (low, 2, 1, 96, 136, 70, 64, True),
        (low, 4, 2, 128, 24, 90, 8, False),
    ):
        x = torch.randn(many, step * outputs + size, device=device).to(dtype)
        weight = torch.randn(groups, size, columns, device=device).to(dtype) * size**-0.5
        bias = torch.randn(groups, columns, device=device).to(dtype)
        for some in (bias, None):
            out = torch.full((many, outputs, columns), float("nan"), device=device, dtype=dtype)
            expected = windows.windows_plain(x, weight, some, outputs, step, gelu, torch.float32)
            found = windows.launch(x, weight, some, out, outputs, step, gelu)
            compare(found, expected, 1e-2 if dtype == low else 2e-3)


def check_weight_gradient(device: torch.device, low: torch.dtype) -> None:
    for dtype, batch, groups, total, columns in ((torch.float32, 2, 2, 70, 8), (low, 3, 2, 100, 30)):
        step, kernel = columns + -columns % 8, 16
        x = torch.randn(batch * groups, (total + kernel) * step, device=device).to(dtype)
        y = torch.randn(batch * groups, total, columns, device=device).to(dtype)
        some = x, y, groups, step, kernel * step
        compare(positions.launch_gradient(*some), positions.weight_gradient_plain(*some), 2e-3)


def check_rows(device: torch.device, low: torch.dtype) -> None:
    from kdkit.losses import regression_frames

    for dtype, width, distance, weight in (
        (torch.float32, 40, "l1", 1.0),
        (torch.float32, 64, "l2", 0.5),
        (low, 48, "l1", 1.0),
        (torch.float32, 48, "l1", 0.0),
    ):
        p, h = (torch.randn(3, 5, width, device=device).to(dtype) for _ in range(2))
        p[0, 0], h[0, 1] = h[0, 0], 0.0
        given, results = torch.randn(3, 5, device=device), []
        for run in (regression_frames, rows.regression_rows):
            own = p.clone().requires_grad_()
            loss = run(own, h, weight, distance)
            results.append((loss.detach(), torch.autograd.grad(loss, own, given)[0]))
        for expected, found in zip(*results, strict=True):
            compare(found, expected, 1e-2 if dtype == low else 1e-4)


def check_ctc(device: torch.device, low: torch.dtype) -> None:
    from kdkit.recognition.ctc_loss import ctc_loss

    logits, letters = 2 * torch.randn(5, 40, len(VOCABULARY)), len(VOCABULARY)
    labels, frames = torch.randint(1, letters, (5, 16)), torch.tensor([40, 33, 12, 1, 20])
    labels[0, 3:5] = labels[0, 2]  # the same letter three times
    labels[2, :5] = torch.arange(1, 6)
    sizes, given = torch.tensor([14, 16, 5, 0, -1]), torch.randn(5)
    for blank in (0, letters - 1):
        targets, results = labels if blank == 0 else labels - 1, []
        for place, run in (("cpu", ctc_loss), (device, ctc.ctc_on_gpu)):
            own = logits.to(place).requires_grad_()
            loss = run(own.log_softmax(-1), *(t.to(place) for t in (targets, frames, sizes)), blank)
            results.append((loss.detach().cpu(), torch.autograd.grad(loss, own, given.to(place))[0].cpu()))
        for expected, found in zip(*results, strict=True):
            compare(found, expected, 1e-4)
        if results[1][0][4] or results[1][1][4].any() or results[1][1][1, 33:].any():
            raise AssertionError("padding has a loss or a gradient")


def check_segments(device: torch.device, low: torch.dtype) -> None:
    """Attention that knows no mask, against attention with one; only a GPU has its kernel."""
    from kdkit.model.encoder import attend, segments

    for width in (40, 64):
        qkv = torch.randn(3, 70, 3, 2, width, device=device).to(low)
        mask = torch.arange(70, device=device) < torch.tensor([[70], [33], [5]], device=device)
        given, results = torch.randn(3, 2, 70, width, device=device) * mask[:, None, :, None], []
        for keys in (mask[:, None, None], segments(mask)):
            own = qkv.float() if keys.dtype == torch.bool else qkv
            own = own.clone().requires_grad_()
            y = attend(*own.permute(2, 0, 3, 1, 4), keys, 0.0) * mask[:, None, :, None]
            results.append((y.detach(), torch.autograd.grad(y, own, given.to(y.dtype))[0]))
        for expected, found in zip(*results, strict=True):
            compare(found, expected, 2e-2)


CHECKS = {
    "windows": check_windows,
    "weight_gradient": check_weight_gradient,
    "rows": check_rows,
    "ctc": check_ctc,
    "segments": check_segments,
}


def compare(found: Tensor, expected: Tensor, allowed: float) -> None:
    """Raises when their difference is more than ``allowed`` of the expected, or anything is not finite."""
    if found.shape != expected.shape or not found.isfinite().all():
        raise AssertionError(f"shape {tuple(found.shape)} for {tuple(expected.shape)}, or not finite")
    apart = ((found.double() - expected.double()).norm() / expected.double().norm()).item()
    if not apart < allowed:
        raise AssertionError(f"{apart:.1e} apart, {allowed:.0e} allowed")
