"""Checks of notebook 02: what a temperature does, which layers are paired, what each term of the loss sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from scipy.stats import entropy
from torch import Tensor

from kdkit import losses
from kdkit.lessons.exercises.checking import Wrong, check_answer, checks, compare, torch_generator

# --- temperature -------------------------------------------------------------------------------------------------


def ids_in_play(cosines: Tensor, tau: float) -> float:
    """The kit's own: e to the mean entropy of softmax(cosines / tau)."""
    log_q = (cosines.float() / tau).log_softmax(-1)
    return _e(-(log_q.exp() * log_q).sum(-1).mean())


def ids_in_play_by_hand(cosines: Tensor, tau: float) -> float:
    """e to the mean entropy, by SciPy."""
    return float(np.exp(entropy((cosines.double() / tau).softmax(-1).numpy(), axis=-1).mean()))


@checks("ids_in_play", ids_in_play)
def check_ids_in_play(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(cosines (N, K), tau)`` -> e to the mean entropy of softmax(cosines / tau), a number 1 .. K."""

    cases = []
    for tau in rng.uniform(0.05, 0.8, 5):
        shape = int(rng.integers(4, 20)), int(rng.integers(3, 30))
        cases.append((2 * torch.rand(shape, generator=torch_generator(rng)) - 1, float(tau)))

    def entropies(cosines, tau):
        log_q = (cosines.double() / tau).log_softmax(-1)
        return -(log_q.exp() * log_q).sum(-1)

    def of_mean(cosines, tau):
        q = (cosines.double() / tau).softmax(-1).mean(0)
        return _e(-(q * q.log()).sum())

    mistakes = [
        ("The temperature is forgotten: divide the cosines by tau.", lambda c, t: _e(entropies(c, 1).mean())),
        (
            "The cosines are multiplied by tau; divide by it: a small tau makes a sharp distribution.",
            lambda c, t: _e(entropies(c, 1 / t).mean()),
        ),
        (
            "This is the entropy itself, in nats: e to it is the number of ids.",
            lambda c, t: float(entropies(c, t).mean()),
        ),
        (
            "This is 2 to the entropy in nats; take e to it (or measure the entropy in bits).",
            lambda c, t: float(2 ** entropies(c, t).mean()),
        ),
        (
            "This is e to an entropy in bits; take e to the entropy in nats (natural logarithm).",
            lambda c, t: _e(entropies(c, t).mean() / np.log(2)),
        ),
        (
            "e is taken of each frame's entropy before the mean: first the mean over frames, then e to it.",
            lambda c, t: float(entropies(c, t).exp().mean()),
        ),
        (
            "This is the entropy of the mean distribution: it tells how many ids are used in all, not between how many "
            "one frame hesitates. Entropy first, then the mean over frames.",
            of_mean,
        ),
        (
            "The mean runs over ids, too: sum over the K ids, then mean over frames.",
            lambda c, t: _e((entropies(c, t) / c.shape[-1]).mean()),
        ),
        (
            "The minus of the entropy is forgotten: q log q is never above 0.",
            lambda c, t: _e(-entropies(c, t).mean()),
        ),
    ]
    compare(call, cases, ids_in_play_by_hand, mistakes, "Frames are averaged, so that one number is left.")
    yield "it is e to the mean entropy, at random temperatures"
    sharp = [(cases[0][0], 0.001), (torch.zeros(3, 7), 0.5)]
    compare(call, sharp, ids_in_play_by_hand, tolerance=1e-3)
    yield "it is near 1 for a very small temperature, and K when all cosines are equal"


def _e(value: Tensor) -> float:
    return float(value.exp())


# --- layers ------------------------------------------------------------------------------------------------------


def spread_pairs_by_hand(student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
    """(1, L / M), (2, 2 L / M) ... (M, L)."""
    ends = np.linspace(0, teacher_layers, student_layers + 1).round().astype(int)[1:]
    return [(i, int(end)) for i, end in enumerate(ends, 1)]


@checks("spread_pairs", spread_pairs_by_hand)
def check_spread_pairs(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(student_layers, teacher_layers)`` -> (student layer, teacher layer) pairs, evenly spread."""

    def plain(*case):
        pairs = call(*case)
        try:
            return [(int(s), int(t)) for s, t in pairs]
        except (TypeError, ValueError):
            raise Wrong("Give a list or tuple of pairs (student layer, teacher layer).") from None

    cases = [(int(m), int(m * rng.integers(2, 7))) for m in rng.choice(range(2, 9), 4, replace=False)]
    right = spread_pairs_by_hand
    mistakes = [
        (
            "Layers are counted from 0 here. S^0 and H^0 are the inputs of layer 1; the pairs are those of the layers "
            "1 to M.",
            lambda m, n: [(i, i * n // m) for i in range(m)],
        ),
        (
            "Off by one on both sides: the last student layer has to meet the teacher's last.",
            lambda m, n: [(s - 1, t - 1) for s, t in right(m, n)],
        ),
        (
            "Off by one on the teacher's side: student layer M has to meet teacher layer L.",
            lambda m, n: [(s, t - 1) for s, t in right(m, n)],
        ),
        (
            "Each student layer meets the *first* of its stretch of teacher layers; it should meet the last one.",
            lambda m, n: [(s, t - n // m + 1) for s, t in right(m, n)],
        ),
        (
            "The student's layers are counted from 0: S^0 is the input of its layer 1.",
            lambda m, n: [(s - 1, t) for s, t in right(m, n)],
        ),
        ("The last pair is missing: range(1, M) ends at M - 1.", lambda m, n: right(m, n)[:-1]),
        (
            "The pairs are (teacher, student): kdkit wants the student's layer first.",
            lambda m, n: [(t, s) for s, t in right(m, n)],
        ),
        (
            "These are the teacher's first layers: spread them over its whole depth.",
            lambda m, n: [(i, i) for i in range(1, m + 1)],
        ),
    ]
    compare(plain, cases, right, mistakes)
    yield "every student layer has its teacher layer, evenly spread, and the last meets the last"


# --- a table to read ---------------------------------------------------------------------------------------------


def check_terms(answer: str | None, guesses: Mapping[str, Tensor], target: Tensor, mask: Tensor) -> None:
    """Is it the prediction among ``guesses`` (B, T, D) that costs distance, but no more angle than the target?"""
    check_answer("my_guess", answer, lambda given: read_terms(given, guesses, target, mask))


def read_terms(given: object, guesses: Mapping[str, Tensor], target: Tensor, mask: Tensor) -> str:
    """What is right about an answer to :func:`check_terms`; raises :class:`Wrong`."""
    cost = {
        name: (
            float(losses.regression_loss(guess, target, mask, 0.0)),
            float(losses.regression_loss(guess, target, mask)),
        )
        for name, guess in guesses.items()
    }
    angles = {name: both - distance for name, (distance, both) in cost.items()}
    floor = min(angles.values())
    own = [name for name in guesses if cost[name][0] > 1e-3 and angles[name] < floor + 1e-3]
    if not isinstance(given, str) or given not in guesses:
        raise Wrong(f"{given!r} is none of the predictions. They are: {', '.join(map(repr, guesses))}.")
    if given not in own and cost[given][0] <= 1e-3:
        raise Wrong(
            f"“{given}” costs no distance at all. Asked for is one that does, but points the right way."
        )
    if given not in own:
        raise Wrong(
            f"“{given}” has an angle term of {angles[given]:.3f}, above the floor of {floor:.3f}: it points "
            "another way. What can be done to a vector that does not turn it?"
        )
    return f"“{given}” has the right direction and the wrong length: only the distance term sees that."
