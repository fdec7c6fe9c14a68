"""Layers against layers: linear CKA between any two, and how much each layer changes its input.

Features may be files (:class:`kdkit.activations.Frames`): two layers are read at a time, some frames at a time, and the
sums are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from kdkit.activations import Frames
from kdkit.errors import ConfigError
from kdkit.score import ratio_interval

_CHUNK = 4096  # frames


def _cross_norm(x: np.ndarray, y: np.ndarray) -> float:
    """Squared Frobenius norm of the cross-covariance of (n, D1) and (n, D2), times n^2."""
    mean_x, mean_y = x.mean(0, dtype=np.float64), y.mean(0, dtype=np.float64)
    product = np.zeros((x.shape[1], y.shape[1]))
    for begin in range(0, len(x), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        product += (x[part] - mean_x).T @ (y[part] - mean_y)
    return float(np.square(product).sum())


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment of (n, D1) and (n, D2), 0..1 (arXiv 1905.00414).

    It is 1 for features that are equal up to a rotation, a shift and a scale.
    """
    return _cross_norm(x, y) / np.sqrt(_cross_norm(x, x) * _cross_norm(y, y))


def cka_map(a: Frames, b: Frames) -> np.ndarray:
    """:func:`linear_cka` of each feature of ``a`` with each of ``b``: (features of a, features of b).

    ``a`` and ``b`` may come from two models, a teacher and its student, but must be the same frames: collected from the
    same utterances with the same seed. Raises :class:`ConfigError` when they are not.
    """
    if not (np.array_equal(a.utterances, b.utterances) and np.array_equal(a.phones, b.phones)):
        raise ConfigError(
            "CKA compares the same frames: collect both from the same utterances with the same seed"
        )
    own_a = [_cross_norm(x, x) for x in a.features]
    own_b = own_a if a is b else [_cross_norm(y, y) for y in b.features]
    values = np.empty((len(own_a), len(own_b)))
    for i, x in enumerate(a.features):
        for j, y in enumerate(b.features):
            if a is b and j < i:
                values[i, j] = values[j, i]
            else:
                values[i, j] = _cross_norm(x, y) / np.sqrt(own_a[i] * own_b[j])
    return values


def _turn(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return 1 - (before * after).sum(1) / norms.clip(1e-12)


def layer_change(hidden: Sequence[np.ndarray]) -> np.ndarray:
    """How much layers 1 .. L change their input: 1 - mean cos(H^(l-1), H^l) over frames. [(n, D)] -> (L,)."""
    return np.array([_turn(before, after).mean() for before, after in pairwise(hidden)])


def layer_changes(frames: Frames, seed: int = 0) -> list[tuple[float, float, float]]:
    """:func:`layer_change` of layers 1 .. L in ``frames``, each with its 95 % interval over utterances."""
    hidden = [x for name, x in zip(frames.names, frames.features, strict=True) if name.startswith("H")]
    _, owner = np.unique(frames.utterances, return_inverse=True)
    totals, rows = np.bincount(owner), []
    for before, after in pairwise(hidden):
        sums = np.bincount(owner, weights=_turn(before, after))
        rows.append((float(sums.sum() / totals.sum()), *ratio_interval(sums, totals, seed=seed)))
    return rows
