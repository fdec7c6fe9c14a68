"""Sample rate and frames: audio is 16 kHz; a frame is 25 ms long, and there is one every 20 ms.

Every front-end gives exactly ``(samples - 400) // 320 + 1`` frames for every length, so a student with one and a
teacher with another are aligned frame by frame without trimming.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE = 16_000  # Hz, everywhere in kdkit
HOP, RECEPTIVE_FIELD = 320, 400  # samples from one frame to the next, and of one frame


def num_frames(samples):
    """Number of 20 ms frames for ``samples`` (int or integer tensor); 400 samples give the first frame."""
    return (samples - RECEPTIVE_FIELD) // HOP + 1


def frame_mask(frames: Tensor, total: int) -> Tensor:
    """(batch,) true frame counts -> (batch, total) bool, True on real frames."""
    import torch

    return torch.arange(total, device=frames.device) < frames[:, None]
