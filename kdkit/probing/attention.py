"""Attention weights of an utterance, and the distance that each head attends over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from kdkit.common.statistics import ratio_interval
from kdkit.model.encoder import Attention
from kdkit.speech.audio import read_audio
from kdkit.speech.frames import HOP, SAMPLE_RATE
from kdkit.speech.manifest import Utterance

FRAME_SECONDS = HOP / SAMPLE_RATE


@contextmanager
def watched_attention(model: nn.Module) -> Iterator[list[Callable[[], Tensor]]]:
    """Within, each forward pass of a SpeechModel appends one function per layer to the yielded list, which returns the
    layer's attention weights (heads, T, T).

    The encoder's fused attention kernel never materialises its weights: they are recomputed from its input on demand.
    """
    weights: list[Callable[[], Tensor]] = []
    hooks = [
        layer.attention.register_forward_pre_hook(
            lambda module, call: weights.append(partial(_weights, module, *call))
        )
        for layer in model.encoder.layers
    ]
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def attention_weights(model: nn.Module, wave: Tensor) -> list[Tensor]:
    """Weights of every layer for one utterance: ``wave`` (samples,) -> layers x (heads, T, T), each row sums to 1.

    ``model``: a SpeechModel, or a Teacher.
    """
    model = getattr(model, "model", model)
    training = model.training
    wave = wave.to(next(model.parameters()).device)
    try:
        with watched_attention(model) as weights:
            model.eval()(wave[None], torch.tensor([len(wave)], device=wave.device), padded=False)
    finally:
        model.train(training)
    return [work_out() for work_out in weights]


@torch.no_grad()
def _weights(attention: Attention, x: Tensor, mask: Tensor | None, bias: Tensor | None = None) -> Tensor:
    q, k, _ = attention.qkv(x).unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (1, heads, T, T)
    if bias is not None:
        logits = logits + attention.gate(x, bias)
    return logits.float().softmax(-1)[0].cpu()


def attention_distance(weights: Tensor) -> Tensor:
    """Mean distance in seconds between a frame and those it attends to: (..., T, T) -> (..., T)."""
    position = torch.arange(weights.shape[-1], dtype=weights.dtype)
    return FRAME_SECONDS * (weights * (position - position[:, None]).abs()).sum(-1)


def even_distance(frames: int) -> float:
    """:func:`attention_distance` in seconds, averaged over an utterance whose frames look at all frames alike."""
    return FRAME_SECONDS * (frames**2 - 1) / (3 * frames)


def head_reach(model: nn.Module, utterances: Sequence[Utterance]) -> tuple[np.ndarray, np.ndarray]:
    """:func:`attention_distance` of every head, summed over the frames of an utterance: (utterances, layers, heads)
    seconds, and how many frames that are, (utterances,): what ratios and their intervals are made of.
    """
    reach, frames = [], []
    for utterance in utterances:
        weights = attention_weights(model, read_audio(utterance.audio))
        reach.append(torch.stack([attention_distance(w).sum(-1) for w in weights]).double().numpy())
        frames.append(weights[0].shape[-1])
    return np.stack(reach), np.array(frames)


def attention_reach(
    model: nn.Module, utterances: Sequence[Utterance], seed: int = 0
) -> list[tuple[float, float, float]]:
    """Mean attention distance of each layer in seconds: (value, low, high), a 95 % interval over utterances."""
    reach, frames = head_reach(model, utterances)
    layers = reach.mean(2).T  # (layers, utterances)
    return [(float(sums.sum() / frames.sum()), *ratio_interval(sums, frames, seed=seed)) for sums in layers]
