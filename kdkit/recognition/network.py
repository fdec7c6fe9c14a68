"""A recogniser's network as decoders see it: window, vocabulary, device, and the log-probabilities that it emits.

Audio goes through a network in overlapping windows (:func:`kdkit.speech.stream.windows`); a recording of up to one
and a half windows goes through in one piece. ``evaluate``, ``finetune``, ``transcribe`` and ``align`` all call
:func:`hear`, so they agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kdkit.common.errors import CheckpointError, ConfigError
from kdkit.common.validation import number
from kdkit.speech.batches import GRAIN, collate
from kdkit.speech.frames import HOP, RECEPTIVE_FIELD, SAMPLE_RATE
from kdkit.speech.manifest import Utterance
from kdkit.speech.stream import Window, windows
from kdkit.speech.text import VOCABULARY, Vocabulary

Network = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""waves (B, S), lengths (B,) -> logits (B, T, V), frames (B,)"""

WINDOW, MARGIN = 6.0, 1.0  # seconds; for recognisers whose file does not give a window
LONGEST_WINDOW = 30.0  # seconds


def window_for(utterances: Sequence[Utterance]) -> float:
    """The window in seconds for a recogniser trained on ``utterances``: the duration of the longest, 6 to 30 s.

    In longer windows than those of training a network makes more errors, in shorter ones attention has less context.
    """
    return min(LONGEST_WINDOW, max([WINDOW, *(utterance.duration for utterance in utterances)]))


def window_of(network: Network, window: float | None = None, margin: float | None = None) -> tuple[int, int]:
    """Window and margin in samples, both multiples of a frame's hop.

    ``window`` in seconds; default: ``network.window``, or 6. ``margin`` in seconds; default: 1, or a sixth of the
    window if that is less. Raises :class:`ConfigError` if the two do not fit (:func:`kdkit.speech.stream.windows`).
    """
    window = getattr(network, "window", WINDOW) if window is None else window
    margin = min(MARGIN, window / 6) if margin is None else margin
    found = tuple(round(seconds * SAMPLE_RATE / HOP) * HOP for seconds in (window, margin))
    list(windows([], *found))  # raises
    return found


def kept_window(meta: Mapping, path: str | Path) -> float:
    """The window in seconds in the metadata of the file ``path``; default 6. Raises :class:`CheckpointError`."""
    try:
        return number(meta.get("window", WINDOW), "window", 1, 3600)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def vocabulary_of(network: Network) -> Vocabulary:
    """The vocabulary of a network's outputs: ``network.vocabulary``, or kdkit's letters."""
    return getattr(network, "vocabulary", VOCABULARY)


def device_of(network: Network) -> torch.device:
    """The device of a network's inputs; ONNX networks run on the CPU."""
    return next(network.parameters()).device if isinstance(network, nn.Module) else torch.device("cpu")


@torch.inference_mode()
def hear(network: Network, pieces: Sequence[Window]) -> list[Tensor]:
    """Runs ``network``, in eval mode, on a batch of windows.

    Returns for each window the log-probabilities (frames, symbols) of the frames to keep, on the CPU; none for a window
    shorter than a frame. A network with ``alone`` set gets one window at a time: in int8 the scales are computed over
    the whole batch, so a window's result would depend on the others.
    """
    if not pieces:
        return []
    if len(pieces) > 1 and getattr(network, "alone", False):
        return [row for piece in pieces for row in hear(network, [piece])]
    batch = collate([torch.from_numpy(piece.wave) for piece in pieces], grain=GRAIN)
    some = batch.to(device_of(network))
    logits, frames = network(some.waves, some.lengths.clamp_min(RECEPTIVE_FIELD))
    frames = torch.where(batch.lengths < RECEPTIVE_FIELD, 0, frames.cpu())
    log_probs = logits.float().log_softmax(-1).cpu()
    return [
        row[:n][piece.first : piece.stop].clone()  # a view would keep the padded batch in memory
        for row, n, piece in zip(log_probs, frames.tolist(), pieces, strict=True)
    ]


def log_probs_of(network: Network, wave: Tensor, window: float | None = None) -> Tensor:
    """Log-probabilities (frames, symbols) of one recording (samples,), a window at a time."""
    pieces = windows([wave.numpy()], *window_of(network, window))
    return torch.cat([hear(network, [piece])[0] for piece in pieces])
