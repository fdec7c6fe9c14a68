"""Similarity of layers: linear CKA between any two, of one model or two, with intervals over utterances.

Features may be memory-mapped files (:class:`kdkit.probing.activations.Frames`): two layers are read at a time, in
chunks of frames, and the sums are exact.

CKA of few frames is biased upwards, by chance correlations, the more the wider the layers (Murphy et al., arXiv
2405.01012). Frames of one utterance are not independent either. The jackknife over utterances
(:mod:`kdkit.common.statistics`) handles both, and for linear CKA it is exact without another pass over the frames for
each utterance. With X and Y centred over all n frames and C = X'Y, leaving out the m frames of utterance u
gives

    C - C_u - s t' / (n - m),    C_u = X_u' Y_u,    s, t = sums of the frames of X_u and Y_u

and the squared norm of that needs, beside |C|^2, only sums over the frames of u: of x C y, and of products of the m x m
matrices X_u X_u' and Y_u Y_u'. All utterances together cost about as much as one more CKA.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kdkit.common.errors import ConfigError
from kdkit.common.statistics import Comparison, jackknife_change, unbiased_share
from kdkit.probing.activations import Frames

_CHUNK = 4096  # frames


def _chunks(*layers: np.ndarray) -> Iterator[list[np.ndarray]]:
    """The layers (n, D), centred, in chunks of frames; float32 is accurate enough for the products, and fast."""
    means = [x.mean(0, dtype=np.float64) for x in layers]
    for begin in range(0, len(layers[0]), _CHUNK):
        yield [
            (x[begin : begin + _CHUNK] - mean).astype(np.float32)
            for x, mean in zip(layers, means, strict=True)
        ]


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cross-covariance of (n, D1) and (n, D2), times n: (D1, D2), summed in float64."""
    return sum((a.T @ b).astype(np.float64) for a, b in _chunks(x, y))


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment of (n, D1) and (n, D2), 0..1 (arXiv 1905.00414).

    It is 1 for features that are equal up to rotation, shift and scale.
    """
    return float(np.square(_cross(x, y)).sum() / np.linalg.norm(_cross(x, x)) / np.linalg.norm(_cross(y, y)))


def cka_map(a: Frames, b: Frames) -> np.ndarray:
    """:func:`linear_cka` of each feature of ``a`` with each of ``b``: (features of a, features of b).

    ``a`` and ``b`` may come from two models, such as teacher and student, but must be the same frames: collected from
    the same utterances with the same seed. Raises :class:`ConfigError` otherwise.
    """
    return cka_jackknife(a, b)[0]


def cka_intervals(a: Frames, b: Frames) -> np.ndarray:
    """:func:`cka_map` less the bias of few frames, and 95 % intervals over utterances.

    (features of a, features of b, 3): value, low, high. Use these to judge differences: with some thousand frames, the
    bias of the map is as large as the interval.
    """
    return unbiased_share(*cka_jackknife(a, b))


def cka_jackknife(a: Frames, b: Frames) -> tuple[np.ndarray, np.ndarray]:
    """:func:`cka_map`, and the map without each utterance: (utterances, features of a, features of b).

    Input of :func:`~kdkit.common.statistics.unbiased_share`, also for a mean over several pairs: average both first.
    With a single utterance the second is empty: (0, features of a, features of b).
    """
    if not (np.array_equal(a.utterances, b.utterances) and np.array_equal(a.phones, b.phones)):
        raise ConfigError(
            "CKA compares the same frames: collect both from the same utterances with the same seed"
        )
    features = a.features if a is b else [*a.features, *b.features]
    first = len(features) - len(b.features)  # of b
    _, owner, frames = np.unique(a.utterances, return_inverse=True, return_counts=True)
    left = (len(owner) - frames).clip(1)  # frames that are left without each utterance
    utterances = np.split(np.argsort(owner, kind="stable"), np.cumsum(frames)[:-1])
    squares, sums = _own_parts(features, utterances, left)
    totals, without = np.zeros(squares.shape[1:]), np.zeros_like(squares)
    pairs = {(i, j) for i in range(len(a.features)) for j in range(max(i, first), len(features))}
    for i, j in sorted(pairs | {(i, i) for i in range(len(features))}):
        cross = _cross(features[i], features[j])
        narrow = cross.astype(np.float32)
        linear = np.concatenate([((x @ narrow) * y).sum(1) for x, y in _chunks(features[i], features[j])])
        linear = np.bincount(owner, linear) + ((sums[i] @ cross) * sums[j]).sum(1) / left
        totals[i, j] = totals[j, i] = np.square(cross).sum()
        without[:, i, j] = without[:, j, i] = totals[i, j] - 2 * linear + squares[:, i, j]
    part = (..., slice(len(a.features)), slice(first, None))
    return _normalised(totals)[part], _normalised(without if len(frames) > 1 else without[:0])[part]


def compare_cka(
    cka: np.ndarray, without: np.ndarray, pair: tuple[int, int], other: tuple[int, int]
) -> Comparison:
    """Is ``pair`` of features more alike than the ``other``? On the same frames, each utterance left out of both.

    ``cka`` and ``without`` are those of :func:`cka_jackknife`.
    """
    change, left_out = cka[pair] - cka[other], without[(..., *pair)] - without[(..., *other)]
    return jackknife_change(float(change), left_out, "CKA")


def _normalised(norms: np.ndarray) -> np.ndarray:
    """Squared norms of cross-covariances (..., features, features) -> CKA."""
    own = np.sqrt(np.diagonal(norms, axis1=-2, axis2=-1))
    return norms / (own[..., None] * own[..., None, :])


def _own_parts(features, utterances, left) -> tuple[np.ndarray, list[np.ndarray]]:
    """Of each utterance: the terms of the squared norm that contain its frames only, (utterances, features, features),
    and the sum of its frames in every feature, [(utterances, D)].
    """
    means = [x.mean(0, dtype=np.float64) for x in features]
    squares = np.zeros((len(utterances), len(features), len(features)))
    sums = [np.empty((len(utterances), x.shape[1])) for x in features]
    for u, rows in enumerate(utterances):
        own = [x[rows] - mean for x, mean in zip(features, means, strict=True)]
        for total, x in zip(sums, own, strict=True):
            total[u] = x.sum(0)
        for begin in range(0, len(rows), 256):  # limits the memory for long recordings
            products = np.stack([(x[begin : begin + 256] @ x.T).ravel() for x in own])
            squares[u] += products @ products.T
        along = np.stack([x @ total[u] for x, total in zip(own, sums, strict=True)])  # (features, frames)
        lengths = np.array([np.square(total[u]).sum() for total in sums])
        squares[u] += 2 * along @ along.T / left[u] + np.outer(lengths, lengths) / left[u] ** 2
    return squares, sums
