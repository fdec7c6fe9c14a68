"""From CTC emissions to text. Greedy: the best symbol of every frame, repeats merged, blanks dropped.

CTC (Graves et al. 2006) sums over all alignments; greedy decoding takes the single best one, which is right
when the network is sure. A letter that occurs twice in a row needs a blank between its frames: "l l" is
"l", "l - l" is "ll".
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdkit.errors import ConfigError
from kdkit.frontends import frame_mask
from kdkit.text import BLANK, VOCABULARY, decode


def collapse(ids: list[int]) -> list[int]:
    """Frame-wise symbols to labels: repeats merged first, then blanks dropped."""
    kept = [symbol for i, symbol in enumerate(ids) if i == 0 or symbol != ids[i - 1]]
    return [symbol for symbol in kept if symbol != BLANK]


def greedy(logits: Tensor, frames: Tensor) -> list[str]:
    """Texts of a batch from logits or log-probabilities (B, T, V) and real frames (B,); padding is not read.

    Raises :class:`ConfigError` when V is not the size of the vocabulary or an utterance claims more than T
    frames.
    """
    check(logits, frames)
    best = logits.argmax(-1).cpu()
    return [decode(collapse(row[:n].tolist())) for row, n in zip(best, frames.tolist(), strict=True)]


def blank_fraction(logits: Tensor, frames: Tensor) -> float:
    """Share of real frames whose best symbol is the blank; a recogniser that works has some 60 to 90 %."""
    check(logits, frames)
    blank = (logits.argmax(-1) == BLANK) & frame_mask(frames.to(logits.device), logits.shape[1])
    return float(blank.sum() / frames.sum().clamp_min(1))


def check(logits: Tensor, frames: Tensor) -> None:
    """Raises :class:`ConfigError` unless emissions (B, T, V) fit the vocabulary and frame counts (B,) fit them."""
    if logits.ndim != 3 or logits.shape[-1] != len(VOCABULARY):
        raise ConfigError(
            f"emissions have shape {tuple(logits.shape)}; (batch, frames, {len(VOCABULARY)}) is needed: "
            "one logit for each symbol of kdkit.text.VOCABULARY"
        )
    if len(frames) != len(logits) or bool(torch.any(frames > logits.shape[1])):
        raise ConfigError(
            f"frame counts {frames.tolist()} do not fit emissions of shape {tuple(logits.shape)}"
        )
