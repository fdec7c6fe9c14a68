"""Frames: 50 a second, one every 320 samples; the first needs 400.

Every front-end gives exactly ``(samples - 400) // 320 + 1`` frames for every length, so a student with one and a
teacher with another are aligned frame by frame without trimming.
"""

from __future__ import annotations

import torch
from torch import Tensor

HOP, RECEPTIVE_FIELD = 320, 400  # samples between frames, samples seen by one frame


def num_frames(samples):
    """Number of 20 ms frames for ``samples`` (int or integer tensor); 400 samples give the first frame."""
    return (samples - RECEPTIVE_FIELD) // HOP + 1


def frame_mask(frames: Tensor, total: int) -> Tensor:
    """(batch,) true frame counts -> (batch, total) bool, True on real frames."""
    return torch.arange(total, device=frames.device) < frames[:, None]
