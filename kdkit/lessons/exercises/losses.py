"""Checks of notebook 02: the two losses, and one of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import entropy
from torch import Tensor

from kdkit import losses
from kdkit.lessons.exercises.checking import (
    Mistake,
    Wrong,
    checks,
    close,
    compare,
    torch_generator,
)

ONE_NUMBER = "A loss is the mean over everything: one number."

# --- where a mean runs: three regions of a padded batch, and the hint for the wrong ones -------------------------

REGIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # (values (B, T), mask (B, T)) -> scalar
    "": lambda values, mask: values[mask].mean(),
    "padding is counted: take the mean over real frames only, for instance of x[mask]": (
        lambda values, mask: values.mean()
    ),
    "padding is set to zero but still counted in the number of frames: divide by mask.sum()": (
        lambda values, mask: (values * mask).mean()
    ),
    "the mask is the wrong way round: it is True on real frames": lambda values, mask: values[~mask].mean(),
    "each utterance is averaged by itself, so short ones count for more: pool the frames of the batch": (
        lambda values, mask: torch.stack([v[m].mean() for v, m in zip(values, mask)]).mean()
    ),
    "this is a sum over frames: the loss then grows with the batch; a mean is asked for": (
        lambda values, mask: values[mask].sum()
    ),
}


def _padded(rng: np.random.Generator, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two tensors (B, T, width) and their mask; every utterance but the longest has padding, which is not small."""
    generator, batch, total = torch_generator(rng), int(rng.integers(2, 5)), int(rng.integers(6, 14))
    lengths = rng.integers(1, total, batch)
    lengths[rng.integers(batch)] = total
    mask = torch.arange(total) < torch.as_tensor(lengths)[:, None]
    pair = [torch.randn(batch, total, width, generator=generator) * s for s in rng.uniform(0.5, 2, 2)]
    noise = torch.randn(batch, total, 1, generator=generator)
    return *(torch.where(mask[..., None], x, x + 3 * noise) for x in pair), mask


def _recognised(parts: list[dict[str, Callable]], combine: Callable) -> list[Mistake]:
    """Every way to get one or two parts wrong: {hint: variant} for each part, the right one under the hint ""."""
    mistakes = []
    for hints in product(*parts):
        said = [hint for hint in hints if hint]
        if 1 <= len(said) <= 2:
            chosen = [part[hint] for part, hint in zip(parts, hints, strict=True)]
            text = ". And ".join(said)
            mistakes.append((len(said), f"{text[0].upper()}{text[1:]}.", combine(*chosen)))
    return [mistake[1:] for mistake in sorted(mistakes, key=lambda m: m[0])]


# --- regression --------------------------------------------------------------------------------------------------

DISTANCES = {  # (p, h) -> (B, T)
    "": lambda p, h: (p - h).abs().mean(-1),
    "the distance is summed over dimensions: its mean runs over dimensions and frames": (
        lambda p, h: (p - h).abs().sum(-1)
    ),
    "the distance is squared (L2): the formula has the absolute value": lambda p, h: (
        (p - h).square().mean(-1)
    ),
    "the distance is the length of the difference: the formula has the mean absolute value of its elements": (
        lambda p, h: (p - h).norm(dim=-1)
    ),
    "the absolute value is missing, so that differences cancel": lambda p, h: (p - h).mean(-1),
    "the distance term is missing": lambda p, h: torch.zeros(p.shape[:-1]),
}


def _cosine(p: Tensor, h: Tensor) -> Tensor:
    return F.cosine_similarity(p, h, dim=-1)


ANGLES = {  # (p, h) -> (B, T)
    "": lambda p, h: -F.logsigmoid(_cosine(p, h)),
    "the angle term is missing": lambda p, h: torch.zeros(p.shape[:-1]),
    "the minus before the log-sigmoid is forgotten: the loss then rewards a wrong direction": (
        lambda p, h: F.logsigmoid(_cosine(p, h))
    ),
    "the angle term is the bare cosine: -log sigmoid(cos) is asked for": lambda p, h: _cosine(p, h),
    "the angle term is minus the cosine, without log and sigmoid": lambda p, h: -_cosine(p, h),
    "the angle term is 1 - cos: the formula has -log sigmoid(cos)": lambda p, h: 1 - _cosine(p, h),
    "the logarithm of the sigmoid is forgotten": lambda p, h: -torch.sigmoid(_cosine(p, h)),
    "the cosine lacks the division by the two lengths: a plain dot product": (
        lambda p, h: -F.logsigmoid((p * h).sum(-1))
    ),
}


def regression_by_hand(p: Tensor, h: Tensor, mask: Tensor, cosine_weight: float = 1.0) -> Tensor:
    """The regression loss in NumPy, float64, frame by frame: nothing is shared with :mod:`kdkit.losses`."""
    distances, angles = [], []
    for a, b, real in zip(p.flatten(0, 1).double().numpy(), h.flatten(0, 1).double().numpy(), mask.flatten()):
        if real:
            distances.append(np.abs(a - b).mean())
            angles.append(np.log1p(np.exp(-(a @ b) / np.sqrt(a @ a) / np.sqrt(b @ b))))
    return torch.tensor(np.mean(distances) + cosine_weight * np.mean(angles))


@checks("regression", losses.regression_loss)
def check_regression_loss(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(p (B, T, D), h (B, T, D), mask (B, T), cosine_weight=1.0)`` -> scalar."""

    def combine(region, distance, angle):
        return lambda p, h, mask, weight=1.0: region(distance(p, h) + weight * angle(p, h), mask)

    def one_region(of_distance, of_angle):
        return lambda p, h, mask: of_distance(DISTANCES[""](p, h), mask) + of_angle(ANGLES[""](p, h), mask)

    width = int(rng.integers(3, 9))
    cases = [_padded(rng, width) for _ in range(4)]
    mistakes = _recognised([REGIONS, DISTANCES, ANGLES], combine)
    for hint, region in REGIONS.items():
        mistakes.append((f"In the distance term {hint}.", one_region(region, REGIONS[""])))
        mistakes.append((f"In the angle term {hint}.", one_region(REGIONS[""], region)))
    summed = "The distance is summed over everything: a mean is asked for, over dimensions and real frames."
    mistakes.append((summed, one_region(lambda values, mask: values[mask].sum() * width, REGIONS[""])))
    compare(call, cases, regression_by_hand, mistakes, ONE_NUMBER)
    yield "distance and angle are those of the formula, on random batches with padding"
    weighted = [(*case, float(weight)) for case, weight in zip(cases, rng.uniform(0.2, 3, 4))]
    forgotten = (
        "cosine_weight is not used: it multiplies the angle term.",
        lambda p, h, m, _: first(p, h, m),
    )
    both = ("cosine_weight multiplies both terms, or the wrong one: it belongs to the angle term alone.",)
    first = regression_by_hand
    distance_only = combine(REGIONS[""], DISTANCES[""], ANGLES["the angle term is missing"])
    wrong_weights = [
        forgotten,
        (*both, lambda p, h, m, w: w * first(p, h, m)),
        (*both, lambda p, h, m, w: (w - 1) * distance_only(p, h, m) + first(p, h, m)),
    ]
    compare(call, weighted, regression_by_hand, wrong_weights, ONE_NUMBER)
    yield "cosine_weight weighs the angle alone"
    p, h, mask = _padded(rng, 5)
    _needs_gradient(call, p, h, mask)
    yield "a gradient reaches the prediction"


def _needs_gradient(call: Callable, student: Tensor, *others) -> None:
    """Is the loss still connected with the student's tensor?"""

    student = student.requires_grad_()
    if not getattr(call(student, *others), "requires_grad", False):
        raise Wrong(
            "The value is right, but no gradient flows: .item(), .detach(), NumPy or no_grad cut it off, and a student "
            "could not learn from it."
        )


# --- the discriminative loss -------------------------------------------------------------------------------------

DIVERGENCES = {  # (log p of the student, log q of the teacher) -> (B, T, K)
    "": lambda log_p, log_q: log_q.exp() * (log_q - log_p),
    "the Kullback-Leibler divergence is the wrong way round: the weights are q, the teacher's": (
        lambda log_p, log_q: log_p.exp() * (log_p - log_q)
    ),
    "the sign is turned: log q minus log p is asked for": lambda log_p, log_q: log_q.exp() * (log_p - log_q),
    "this is the cross-entropy; the divergence has the teacher's own entropy taken off, and is 0 when p equals q": (
        lambda log_p, log_q: -log_q.exp() * log_p
    ),
    "the weights q are forgotten: each id counts as much as the teacher believes in it": (
        lambda log_p, log_q: log_q - log_p
    ),
}
OVER_IDS = {  # (B, T, K) -> (B, T)
    "": lambda x: x.sum(-1),
    "the mean runs over ids, too (reduction='mean' does that): sum over the K ids, then mean over frames": (
        lambda x: x.mean(-1)
    ),
}


def discriminative_by_hand(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """The discriminative loss by SciPy's relative entropy, frame by frame, float64."""
    q, p = (x[mask].double().softmax(-1).numpy() for x in (teacher, student))
    return torch.tensor(np.mean([entropy(a, b) for a, b in zip(q, p, strict=True)]))


@checks("discriminative", losses.discriminative_loss)
def check_discriminative_loss(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(student (B, T, K), teacher (B, T, K), mask (B, T))`` of logits -> scalar."""

    def combine(region, over_ids, divergence):
        def loss(student, teacher, mask):
            return region(over_ids(divergence(student.log_softmax(-1), teacher.log_softmax(-1))), mask)

        return loss

    cases = [_padded(rng, int(rng.integers(3, 9))) for _ in range(4)]
    whole = "the sum over frames is divided by the number of utterances, not of real frames"
    padded = "all frames, padding included, are summed and divided by the number of utterances: 'batchmean' divides by "
    padded += "the length of the first axis, so give it the real frames only, for instance x[mask]"
    regions = REGIONS | {
        whole: lambda values, mask: values[mask].sum() / len(mask),
        padded: lambda values, mask: values.sum() / len(mask),
    }

    def no_softmax(student, teacher, mask):
        return (teacher.exp() * (teacher - student)).sum(-1)[mask].mean()

    mistakes = _recognised([regions, OVER_IDS, DIVERGENCES], combine)
    mistakes.append(
        ("The logits are used as they are: softmax makes distributions of them first.", no_softmax)
    )
    compare(call, cases, discriminative_by_hand, mistakes, ONE_NUMBER)
    yield "it is the divergence of the formula, on random batches with padding"
    student, _, mask = _padded(rng, 6)
    same = call(student, student + float(rng.uniform(1, 5)), mask)
    if not close(same.detach(), torch.tensor(0.0)):
        raise Wrong(
            f"Logits that differ by a constant are one distribution, so the loss is 0; it is {float(same):.3g}."
        )
    yield "it is 0 for equal distributions, whatever constant is added to the logits"
    _needs_gradient(call, *_padded(rng, 5))
    yield "a gradient reaches the student"


# --- a loss of one's own -----------------------------------------------------------------------------------------

STEPS = {  # (p, h) -> (B, T - 1, D)
    "": lambda p, h: p.diff(dim=1) - h.diff(dim=1),
    "the teacher's steps are forgotten: compare the steps of p with those of h": lambda p, h: p.diff(dim=1),
    "the states are compared and not their steps from frame to frame": lambda p, h: (p - h)[:, 1:],
    "the steps of p are compared with the states of h": lambda p, h: p.diff(dim=1) - h[:, 1:],
    "the two steps are added: subtract one from the other": lambda p, h: p.diff(dim=1) + h.diff(dim=1),
    "these steps lead from each frame to the next but one": (
        lambda p, h: F.pad((p - h)[:, 2:] - (p - h)[:, :-2], (0, 0, 1, 0))
    ),
}
SIZES = {  # (B, T - 1, D) -> (B, T - 1)
    "": lambda steps: steps.abs().mean(-1),
    "the differences are squared: the formula has the absolute value": lambda steps: steps.square().mean(-1),
    "the differences are summed over dimensions: their mean runs over dimensions and frames": (
        lambda steps: steps.abs().sum(-1)
    ),
    "the absolute value is missing, so that differences cancel": lambda steps: steps.mean(-1),
    "the size is the length of the difference: the formula has the mean absolute value of its elements": (
        lambda steps: steps.norm(dim=-1)
    ),
}
PAIRS = {
    hint: lambda values, mask, mean=mean: mean(values, mask[:, 1:]) for hint, mean in REGIONS.items()
} | {
    "mask[:, :-1] also takes the step from the last real frame into the padding: both frames have to be real": (
        lambda values, mask: values[mask[:, :-1]].mean()
    ),
    "the sum is divided by the number of frames: an utterance has one pair less": (
        lambda values, mask: (values * mask[:, 1:]).sum() / mask.sum()
    ),
}


def neighbours(p: Tensor, h: Tensor, mask: Tensor) -> Tensor:
    """The kit's own: mean |(p[t + 1] - p[t]) - (h[t + 1] - h[t])| over real pairs of frames; p, h (B, T, D)."""
    return losses.mean_over(mask[:, 1:], (p.diff(dim=1) - h.diff(dim=1)).abs().mean(-1))


def neighbours_by_hand(p: Tensor, h: Tensor, mask: Tensor) -> Tensor:
    """The same in NumPy, float64, one utterance after the other."""
    apart = [np.diff((a - b)[real].double().numpy(), axis=0) for a, b, real in zip(p, h, mask, strict=True)]
    return torch.tensor(np.abs(np.concatenate(apart)).mean())


@checks("neighbours", neighbours)
def check_neighbours(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(p (B, T, D), h (B, T, D), mask (B, T))`` -> scalar."""

    def combine(region, steps, size):
        return lambda p, h, mask: region(size(steps(p, h)), mask)

    cases = [_padded(rng, int(rng.integers(3, 9))) for _ in range(4)]
    mistakes = _recognised([PAIRS, STEPS, SIZES], combine)
    compare(call, cases, neighbours_by_hand, mistakes, ONE_NUMBER)
    yield "it compares the steps from frame to frame, on random batches with padding"
    p, _, mask = _padded(rng, 5)
    moved = call(p, p + torch.randn(1, 1, 5, generator=torch_generator(rng)), mask)
    if not close(moved.detach(), torch.tensor(0.0)):
        raise Wrong(
            f"States that differ by a constant take the same steps, so the loss is 0; it is {float(moved):.3g}."
        )
    yield "it is 0 for states that differ by a constant"
    _needs_gradient(call, *_padded(rng, 5))
    yield "a gradient reaches the prediction"
