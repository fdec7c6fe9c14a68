"""How much each layer changes its input."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from kdkit.common.statistics import ratio_interval
from kdkit.probing.activations import Frames


def _turn(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return 1 - (before * after).sum(1) / norms.clip(1e-12)


def layer_change(hidden: Sequence[np.ndarray]) -> np.ndarray:
    """Change by layers 1 .. L: 1 - mean cos(H^(l-1), H^l) over frames. [(n, D)] -> (L,)."""
    return np.array([_turn(before, after).mean() for before, after in pairwise(hidden)])


def layer_changes(frames: Frames, seed: int = 0) -> list[tuple[float, float, float]]:
    """:func:`layer_change` of layers 1 .. L in ``frames``, as (value, low, high): 95 % intervals over utterances."""
    hidden = [x for name, x in zip(frames.names, frames.features, strict=True) if name.startswith("H")]
    _, owner = np.unique(frames.utterances, return_inverse=True)
    totals, rows = np.bincount(owner), []
    for before, after in pairwise(hidden):
        sums = np.bincount(owner, weights=_turn(before, after))
        rows.append((float(sums.sum() / totals.sum()), *ratio_interval(sums, totals, seed=seed)))
    return rows
