"""Two voices that say the same words, frame against frame: dynamic time warping."""

from __future__ import annotations

import numpy as np


def frame_similarity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosine of every frame of x (T, D) with every frame of y (S, D): (T, S).

    From both the mean over their frames is taken off first, so that what all frames of a recording share (voice,
    microphone, a direction of the whole layer) does not count.
    """
    x, y = (_directions(np.asarray(frames, dtype=np.float64)) for frames in (x, y))
    return x @ y.T


def _directions(frames: np.ndarray) -> np.ndarray:
    centred = frames - frames.mean(0)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-9)


def warp(similarity: np.ndarray) -> np.ndarray:
    """The path (P, 2) from the first pair of frames to the last with the least sum of 1 - similarity (T, S).

    A step goes to the next frame of one of the two, or of both (dynamic time warping, Sakoe and Chiba 1978).
    """
    rows, columns = similarity.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for step in range(2, rows + columns + 1):  # all cells of an antidiagonal at once
        i = np.arange(max(1, step - columns), min(rows, step - 1) + 1)
        j = step - i
        before = np.minimum(total[i - 1, j - 1], np.minimum(total[i - 1, j], total[i, j - 1]))
        total[i, j] = 1 - similarity[i - 1, j - 1] + before
    path = [(rows, columns)]
    while path[-1] != (1, 1):
        i, j = path[-1]
        path.append(min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda cell: total[cell]))
    return np.array(path[::-1]) - 1


def along(similarity: np.ndarray, path: np.ndarray) -> float:
    """Mean similarity on a path (P, 2)."""
    return float(similarity[path[:, 0], path[:, 1]].mean())
