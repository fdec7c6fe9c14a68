"""From CTC emissions to text. Greedy: the best symbol of every frame, repeats merged, blanks dropped.

CTC (Graves et al. 2006) sums over all alignments; greedy decoding takes the single best one, which is right
when the network is sure. A letter that occurs twice in a row needs a blank between its frames: "l l" is
"l", "l - l" is "ll".

A decoder, greedy or beam search, reads a *stretch* of speech: what lies between two pauses of half a second. A pause
ends a word whether or not the network says so (:func:`text_of`). Whatever the kit does with a recogniser, the text
comes from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kdkit.common.errors import ConfigError
from kdkit.speech.frames import frame_mask
from kdkit.speech.text import VOCABULARY, Vocabulary

Decoder = Callable[[Tensor, Tensor, Vocabulary], list[str]]  # logits (B, T, V), frames (B,) -> B texts

# Frames (0.5 s): so many blanks in a row are a pause. Measured: 15 (0.3 s) cut words in two, +0.2 to +0.9 points of
# WER on the test sets, where 25 changes one word in 13,000; in strings of digits and sentences with pauses between
# them, 25 saves 3 to 8 points against no rule, because words on both sides of a pause are no longer joined.
PAUSE = 25
LONGEST = 1500  # frames, 30 s: without a pause a stretch ends at a word boundary


def collapse(ids: list[int], blank: int = VOCABULARY.blank) -> list[int]:
    """Frame-wise symbols to labels: repeats merged first, then blanks dropped."""
    kept = [symbol for i, symbol in enumerate(ids) if i == 0 or symbol != ids[i - 1]]
    return [symbol for symbol in kept if symbol != blank]


def greedy(logits: Tensor, frames: Tensor, vocabulary: Vocabulary = VOCABULARY) -> list[str]:
    """Texts of a batch from logits or log-probabilities (B, T, V) and real frames (B,); padding is not read.

    Raises :class:`ConfigError` when V is not the size of the vocabulary or an utterance claims more than T
    frames.
    """
    check(logits, frames, vocabulary)
    best = logits.argmax(-1).cpu()
    return [
        vocabulary.decode(collapse(row[:n].tolist(), vocabulary.blank))
        for row, n in zip(best, frames.tolist(), strict=True)
    ]


def blank_fraction(logits: Tensor, frames: Tensor, vocabulary: Vocabulary = VOCABULARY) -> float:
    """Share of real frames whose best symbol is the blank; a recogniser that works has some 60 to 90 %."""
    check(logits, frames, vocabulary)
    blank = (logits.argmax(-1) == vocabulary.blank) & frame_mask(frames.to(logits.device), logits.shape[1])
    return float(blank.sum() / frames.sum().clamp_min(1))


def check(logits: Tensor, frames: Tensor, vocabulary: Vocabulary) -> None:
    """Raises :class:`ConfigError` unless emissions (B, T, V) fit the vocabulary and frame counts (B,) fit them."""
    if logits.ndim != 3 or logits.shape[-1] != len(vocabulary):
        raise ConfigError(
            f"emissions have shape {tuple(logits.shape)}; (batch, frames, {len(vocabulary)}) is needed: "
            "one logit for each symbol of the recogniser's vocabulary"
        )
    if len(frames) != len(logits) or bool(torch.any(frames > logits.shape[1])):
        raise ConfigError(
            f"frame counts {frames.tolist()} do not fit emissions of shape {tuple(logits.shape)}"
        )


def text_of(decoder: Decoder, log_probs: Tensor, vocabulary: Vocabulary = VOCABULARY) -> str:
    """Text of one recording's emissions (T, V): every stretch is decoded by itself, and a pause ends a word."""
    found = decode_stretches(decoder, log_probs, vocabulary)
    return " ".join(text for _, text in found if text)


def decode_stretches(
    decoder: Decoder, log_probs: Tensor, vocabulary: Vocabulary = VOCABULARY
) -> Iterator[tuple[Tensor, str]]:
    """(emissions, text) of every stretch of (T, V), in order."""
    while len(log_probs):
        part = log_probs[: stretch(log_probs, vocabulary)]  # None: to the end
        yield part, decoder(part[None], torch.tensor([len(part)]), vocabulary)[0]
        log_probs = log_probs[len(part) :]


def stretch(log_probs: Tensor, vocabulary: Vocabulary = VOCABULARY) -> int | None:
    """Frames up to the middle of the first pause in (T, V) that has speech before and after it.

    Without one: None, or, beyond ``LONGEST`` frames, those up to the last word boundary (all of them if there is none).
    Only the first ``LONGEST`` frames count, so a recording is cut alike however much of it is there already.
    """
    best = log_probs[:LONGEST].argmax(-1)
    spoken = torch.nonzero(best != vocabulary.blank).flatten()
    pauses = torch.nonzero(spoken.diff() > PAUSE).flatten()
    if len(pauses):
        before, after = spoken[pauses[0]], spoken[pauses[0] + 1]
        return int(after - (after - before - 1) // 2)
    if len(best) < LONGEST:
        return None
    if vocabulary.boundary is None:
        return len(best)
    boundaries = torch.nonzero(best == vocabulary.boundary).flatten()
    return int(boundaries[-1]) if len(boundaries) and boundaries[-1] > 0 else len(best)
