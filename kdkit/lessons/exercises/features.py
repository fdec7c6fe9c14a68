"""Checks of notebook 03: mel filters, frames of a convolution, a saving to read off, the adaptation stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn

from kdkit.fbank import mel_filterbank
from kdkit.lessons.exercises.checking import (
    Wrong,
    check_answer,
    checks,
    close,
    compare,
    same_kind,
    torch_generator,
)
from kdkit.lessons.exercises.losses import REGIONS
from kdkit.losses import regression_loss

# --- mel filters -------------------------------------------------------------------------------------------------


def _triangles(
    bins: int, fft: int, rate: int, low: float, high=None, axis="mel", points=None, shift=0, floor=True
) -> Tensor:
    """Triangular filters with one thing or another done wrongly."""
    mel = (lambda f: 1127 * np.log1p(np.asarray(f) / 700)) if axis != "hertz" else np.asarray
    edges = np.linspace(mel(low), mel(rate / 2 if high is None else high), bins + 2)
    if axis == "decimal":  # the logarithm to base 10 with the factor of the natural one
        edges = np.linspace(*(1127 * np.log10(1 + f / 700) for f in (low, rate / 2)), bins + 2)
    hertz = (np.arange(fft // 2 + 1) + shift) * rate / (points or fft)
    at = (1127 * np.log10(1 + hertz / 700) if axis == "decimal" else mel(hertz))[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    filters = np.minimum(rising, falling)
    return torch.from_numpy(filters.clip(0) if floor else filters).float()


@checks("mel_filters", mel_filterbank)
def check_mel_filters(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(bins, fft, rate, low)`` -> mel filters (fft // 2 + 1, bins) from ``low`` Hz to half the rate."""

    cases = []
    for rate in rng.permutation([8_000, 16_000, 22_050, 44_100])[:3]:
        bins, fft = int(rng.integers(10, 60)), int(rng.choice([256, 512, 1024]))
        cases.append((bins, fft, int(rate), float(rng.uniform(10, 120))))

    def area(bins, fft, rate, low):
        filters = _triangles(bins, fft, rate, low)
        return filters / filters.sum(0).clamp_min(1e-12)

    mistakes = [
        (
            "The upper limit is the sampling rate itself; the spectrum ends at half of it, rate / 2.",
            lambda b, n, r, f: _triangles(b, n, r, f, high=r),
        ),
        (
            "The upper limit is 8,000 Hz whatever the rate; it has to be rate / 2.",
            lambda b, n, r, f: _triangles(b, n, r, f, high=8_000),
        ),
        (
            "The lower limit is 20 Hz whatever `low` is.",
            lambda b, n, r, f: _triangles(b, n, r, 20.0),
        ),
        (
            "The lower limit is 0 Hz whatever `low` is.",
            lambda b, n, r, f: _triangles(b, n, r, 0.0),
        ),
        (
            "The filters are spread evenly in Hz: put limits and bins through mel() first.",
            lambda b, n, r, f: _triangles(b, n, r, f, axis="hertz"),
        ),
        (
            "The logarithm is to base 10; with the factor 1127 it is the natural one (log1p).",
            lambda b, n, r, f: _triangles(b, n, r, f, axis="decimal"),
        ),
        (
            "Weights below zero are left: outside its triangle a filter is 0 (the max with 0, or clip).",
            lambda b, n, r, f: _triangles(b, n, r, f, floor=False),
        ),
        (
            "Bin k of the spectrum lies at k * rate / fft; here it is twice as high.",
            lambda b, n, r, f: _triangles(b, n, r, f, points=n // 2),
        ),
        (
            "Off by one: the first bin of the spectrum is 0 Hz, so count from 0.",
            lambda b, n, r, f: _triangles(b, n, r, f, shift=1),
        ),
        ("The filters are divided by their area; these have height 1.", area),
    ]
    shape = (
        "A row for each of the fft // 2 + 1 bins of the spectrum, a column for each filter; bins + 2 points make "
        "bins triangles."
    )
    compare(call, cases, mel_filterbank, mistakes, shape, tolerance=2e-3)
    yield "they are Kaldi's, at random rates, sizes and lower limits"
    filters = call(*cases[0])
    if filters.dtype != torch.float32:
        raise Wrong(
            f"The values are right, but of type {filters.dtype}: .float() makes them fit for torch models."
        )
    yield "they are float32"


# --- frames of a convolution -------------------------------------------------------------------------------------


def conv_frames(n: int, kernel: int, stride: int, padding: int = 0) -> int:
    """Frames that a convolution makes of ``n``: int or array."""
    return (n + 2 * padding - kernel) // stride + 1


def _conv_frames_by_torch(n: int, kernel: int, stride: int, padding: int) -> int:
    """What torch's own convolution gives."""
    return nn.functional.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, kernel), None, stride, padding).shape[
        -1
    ]


@checks("conv_frames", conv_frames)
def check_conv_frames(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(n, kernel, stride, padding=0)`` -> frames that a convolution makes of n."""

    def draw(padding: bool) -> list[tuple[int, int, int, int]]:
        drawn = []
        for _ in range(60):  # so many that two mistakes do not agree on all of them
            kernel = int(rng.integers(2, 12))
            pad = int(rng.integers(1, 1 + kernel // 2)) if padding else 0
            drawn.append((int(rng.integers(20, 400)), kernel, int(rng.integers(2, 6)), pad))
        return drawn

    mistakes = [
        (
            "Off by one: the first place of the kernel counts, too; add 1 after the division.",
            lambda n, k, s, p: conv_frames(n, k, s, p) - 1,
        ),
        (
            "Off by one: the 1 is added before the division; it belongs after it.",
            lambda n, k, s, p: (n + 2 * p - k + 1) // s,
        ),
        (
            "This rounds up: a kernel that hangs over the end makes no frame; divide with //.",
            lambda n, k, s, p: -(-(n + 2 * p - k) // s) + 1,
        ),
        (
            "The padding is counted once: it stands on both sides.",
            lambda n, k, s, p: (n + p - k) // s + 1,
        ),
        ("The padding is not used.", lambda n, k, s, p: (n - k) // s + 1),
        ("The kernel is not used: it needs k places, so n - k steps are left.", lambda n, k, s, p: n // s),
        (
            "The kernel is not used: it needs k places, so n - k steps are left.",
            lambda n, k, s, p: (n + 2 * p) // s,
        ),
    ]
    # three arguments first: padding is 0 by default
    unpadded = [case[:3] for case in draw(False)]
    plain = [(hint, lambda n, k, s, w=wrong: w(n, k, s, 0)) for hint, wrong in mistakes]
    compare(call, unpadded, lambda n, k, s: _conv_frames_by_torch(n, k, s, 0), plain)
    yield "it agrees with torch's convolution, without padding"
    compare(call, draw(True), _conv_frames_by_torch, mistakes)
    yield "and with padding"
    lengths = np.arange(50, 60)
    try:
        found = call(lengths, 5, 2, 2)
    except Wrong as wrong:
        raise Wrong(f"It should take an array of lengths, too. {wrong}") from None
    if not np.array_equal(found, conv_frames(lengths, 5, 2, 2)):
        raise Wrong("For an array of lengths it gives other numbers than one by one: use // on the array.")
    yield "and takes many lengths at once"


# --- a saving to read off ----------------------------------------------------------------------------------------


def check_saving(answer: float | None, counts: Mapping[str, int], student: str) -> None:
    """Is it how many per cent fewer parameters an Fbank ``student`` has than its waveform twin, by ``counts``?"""
    check_answer("my_saving", answer, lambda given: read_saving(given, counts, student))


def read_saving(given: object, counts: Mapping[str, int], student: str) -> str:
    """What is right about an answer to :func:`check_saving`; raises :class:`Wrong`."""
    if not isinstance(given, Real) or isinstance(given, bool):
        raise Wrong(f"{given!r} is no number: give per cent, such as 12.")
    twin = student.replace("fbank", "waveform")
    less, more = counts[student], counts[twin]
    saved, value = 100 * (1 - less / more), float(given)
    if abs(value - saved) <= 0.6:
        return f"{more - less:,} of {more:,} parameters are saved: {saved:.1f} %."
    paper = 100 * (1 - counts["dt-fbank"] / counts["dt-waveform"])
    hints = {
        saved / 100: "That is the share; asked for are per cent: a hundred times as many.",
        100 - saved: "That is what is left; asked for is what is saved.",
        100 * (more / less - 1): (
            "The difference is divided by the smaller model; a saving is a share of what one had before."
        ),
        paper: f"That is the saving of the paper's deep & thin student; asked for is that of {student}.",
    }
    for wrong, hint in hints.items():
        if abs(value - wrong) <= (0.6 if wrong > 1 else 0.006):
            raise Wrong(hint)
    if value == more - less or abs(value - (more - less) / 1e6) < 0.06:
        raise Wrong("That is the difference in parameters; divide it by those of the waveform student.")
    raise Wrong(
        f"The difference of the two numbers under “all”, divided by the one of {twin}, gives another."
    )


# --- the adaptation stage ----------------------------------------------------------------------------------------


def staged_loss(
    step: int,
    adaptation_steps: int,
    features: Tensor,
    head: nn.Module,
    target: Tensor,
    mask: Tensor,
    usual_loss: Callable[[], Tensor],
) -> Tensor:
    """The package's: what :meth:`kdkit.distill.DistillTask.forward` does."""
    if step < adaptation_steps:
        return regression_loss(head(features), target, mask, cosine_weight=0.0)
    return usual_loss()


@checks("staged_loss", staged_loss)
def check_staged_loss(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(step, adaptation_steps, features, head, target, mask, usual_loss)`` -> scalar."""

    generator, steps = torch_generator(rng), int(rng.integers(5, 50))
    calls = []

    def draw() -> tuple[Tensor, Callable, Tensor, Tensor]:
        """features (B, T, D), a head from D to E, target (B, T, E), mask (B, T)."""
        batch, total, dim, wide = (int(n) for n in rng.integers(3, 9, 4))
        lengths = rng.integers(1, total, batch)
        lengths[0] = total
        mask = torch.arange(total) < torch.as_tensor(lengths)[:, None]
        target = torch.randn(batch, total, wide, generator=generator) * 2
        target[~mask] += 30  # farther than any real frame: who counts padding is not right by chance
        matrix = torch.randn(wide, dim, generator=generator)
        return torch.randn(batch, total, dim, generator=generator), lambda x: x @ matrix.T, target, mask

    def usual() -> Tensor:
        calls.append(1)
        return torch.tensor(50.0, requires_grad=True)  # larger than any distance here

    def at(step: int, adaptation_steps: int = steps) -> Tensor:
        return same_kind(call(step, adaptation_steps, *data, usual), torch.tensor(0.0))

    def adapted(step, adaptation_steps, features, head, target, mask, usual_loss) -> Tensor:
        rows = [(head(f[m]) - t[m]).abs().double() for f, t, m in zip(features, target, mask, strict=True)]
        return torch.cat(rows).mean().float()

    def in_region(region: Callable, distance: Callable) -> Callable:
        return lambda step, n, features, head, target, mask, usual_loss: region(
            distance(head(features) - target), mask
        )

    mistakes = [
        (
            "The usual loss is used from the start: as long as step < adaptation_steps, it is the front-end's turn.",
            lambda *arguments: usual().detach(),
        ),
        (
            "The distance is squared (L2): the formula has the absolute value.",
            in_region(REGIONS[""], lambda x: x.square().mean(-1)),
        ),
        (
            "The absolute value is missing, so that differences cancel.",
            in_region(REGIONS[""], lambda x: x.mean(-1)),
        ),
        (
            "The angle term is added: the formula of the adaptation has the distance alone.",
            lambda step, n, features, head, target, mask, usual_loss: regression_loss(
                head(features), target, mask
            ),
        ),
        (
            "The distance is summed over dimensions: its mean runs over dimensions and frames.",
            in_region(REGIONS[""], lambda x: x.abs().sum(-1)),
        ),
    ]
    mistakes += [
        (f"{hint[0].upper()}{hint[1:]}.", in_region(region, lambda x: x.abs().mean(-1)))
        for hint, region in REGIONS.items()
        if hint
    ]
    data = draw()  # and other data in another step, so that two mistakes do not agree by chance
    early = [(0, steps, *data, usual), (int(rng.integers(1, steps - 1)), steps, *draw(), usual)]
    compare(call, early, adapted, mistakes, "A loss is the mean over everything: one number.")
    if calls and not _silent(at, calls):
        raise Wrong(
            "During the adaptation usual_loss() is called although nobody needs it: that would compute the whole "
            "network in every step. Call it in the other branch only."
        )
    yield "the first steps compare the front-end with H^0, over real frames, and compute nothing else"
    loss = call(0, steps, data[0].clone().requires_grad_(), *data[1:], usual)
    if not loss.requires_grad:
        raise Wrong("No gradient reaches the front-end: .item(), .detach() or no_grad cut it off.")
    yield "a gradient reaches the front-end"
    if not close(at(steps - 1), adapted(*early[0])):
        raise Wrong(
            f"Off by one: with {steps} steps of adaptation, counted from 0, step {steps - 1} is the last of them."
        )
    for step in (steps, steps + int(rng.integers(1, 100))):
        if not close(at(step), usual().detach()):
            late = " Off by one: steps are counted from 0." if step == steps else ""
            raise Wrong(
                f"In step {step} of a run with {steps} steps of adaptation, usual_loss() takes over.{late}"
            )
    if not close(at(0, 0), usual().detach()):
        raise Wrong("Without adaptation (0 steps) the usual loss is the first step's, too.")
    yield "then the usual loss takes over, at the right step, and at once when there is no adaptation"


def _silent(at: Callable, calls: list) -> bool:
    """True when one more early step leaves ``usual_loss`` alone."""
    calls.clear()
    at(0)
    return not calls
