"""What a network emits: for a batch of windows, and for a whole test set, kept so that many decoders can read it.

Sound goes through a network in overlapping windows (:func:`kdkit.speech.stream.windows`); a recording of up to one
and a half windows goes through in one piece. ``evaluate``, ``finetune`` and ``transcribe`` all do it here.

What a whole recogniser is worth: error rates with intervals, and its real-time factor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from kdkit.common.errors import CheckpointError, ConfigError
from kdkit.common.parallel import cores, each
from kdkit.common.validation import number
from kdkit.recognition.decode import BeamSearch, Decoder, greedy, text_of
from kdkit.recognition.wer import Score, score, speaker_interval
from kdkit.speech.audio import MIN_SAMPLES, SAMPLE_RATE
from kdkit.speech.batches import GRAIN, Batches, collate
from kdkit.speech.frames import HOP
from kdkit.speech.manifest import Utterance
from kdkit.speech.stream import Window, windows
from kdkit.speech.text import VOCABULARY, Vocabulary

Network = Callable[
    [Tensor, Tensor], tuple[Tensor, Tensor]
]  # waves (B, S), lengths (B,) -> logits (B, T, V), frames (B,)

WINDOW, MARGIN = 6.0, 1.0  # seconds: of recognisers that do not say what they were trained on
LONGEST_WINDOW = 30.0  # seconds


def window_for(utterances: Sequence[Utterance]) -> float:
    """The window in seconds for a recogniser trained on ``utterances``: as long as the longest of them.

    A network hears less well in windows that are longer than what it was trained on, and in shorter ones attention
    sees less than it could.
    """
    return min(LONGEST_WINDOW, max(WINDOW, *(utterance.duration for utterance in utterances)))


def window_of(network: Network, window: float | None = None, margin: float | None = None) -> tuple[int, int]:
    """Window and margin in samples. In seconds ``window`` is the network's own (``network.window``, else 6 s) and
    ``margin`` 1 s, or a sixth of a shorter window, unless given. Raises :class:`ConfigError` if they do not fit."""
    window = getattr(network, "window", WINDOW) if window is None else window
    margin = min(MARGIN, window / 6) if margin is None else margin
    found = tuple(round(seconds * SAMPLE_RATE / HOP) * HOP for seconds in (window, margin))
    list(windows([], *found))  # refuses what does not fit
    return found


def kept_window(meta: Mapping, path: str | Path) -> float:
    """The window in seconds that a recogniser's file names, else 6. Raises :class:`CheckpointError`."""
    try:
        return number(meta.get("window", WINDOW), "window", 1, 3600)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def vocabulary_of(network: Network) -> Vocabulary:
    """What a network's outputs stand for: its own ``vocabulary``, kdkit's letters if it does not say."""
    return getattr(network, "vocabulary", VOCABULARY)


def device_of(network: Network) -> torch.device:
    """Where a network wants its waves."""
    return next(network.parameters()).device if isinstance(network, nn.Module) else torch.device("cpu")


@torch.inference_mode()
def hear(network: Network, pieces: Sequence[Window]) -> list[Tensor]:
    """Log-probabilities (frames, symbols), on the CPU, of the frames that are kept of each window; one batch.

    A window too short for a frame has none. The network is expected in eval mode. One that is ``alone``, because it
    would hear a recording differently beside others (int8, whose scales are taken over all that it is given), gets
    one window at a time.
    """
    if not pieces:
        return []
    if len(pieces) > 1 and getattr(network, "alone", False):
        return [row for piece in pieces for row in hear(network, [piece])]
    batch = collate([torch.from_numpy(piece.wave) for piece in pieces], grain=GRAIN)
    some = batch.to(device_of(network))
    logits, frames = network(some.waves, some.lengths.clamp_min(MIN_SAMPLES))
    frames = torch.where(batch.lengths < MIN_SAMPLES, 0, frames.cpu())
    log_probs = logits.float().log_softmax(-1).cpu()
    return [
        row[:n][piece.first : piece.stop].clone()  # not a view: the padding can go
        for row, n, piece in zip(log_probs, frames.tolist(), pieces, strict=True)
    ]


@dataclass(frozen=True)
class Emissions:
    """Log-probabilities (frames, symbols) of every utterance that could be read, in the order of the manifest."""

    utterances: tuple[Utterance, ...]
    log_probs: tuple[Tensor, ...] = field(repr=False)
    seconds: float  # what reading and computing them took, wall clock
    vocabulary: Vocabulary = VOCABULARY
    skipped: tuple[tuple[str, str], ...] = ()  # (id, reason) of those that could not be read

    @property
    def references(self) -> list[str]:
        return [utterance.text for utterance in self.utterances]

    @property
    def speakers(self) -> list[str]:
        return [utterance.speaker for utterance in self.utterances]

    @property
    def speech(self) -> float:
        """Seconds of audio."""
        return sum(utterance.duration for utterance in self.utterances)


def emissions(
    network: Network,
    utterances: Sequence[Utterance],
    seconds_per_batch: float = 60,
    window: float | None = None,
) -> Emissions:
    """Runs ``network`` over ``utterances`` in batches of like length, in windows of ``window`` seconds
    (:func:`window_of`).

    4 bytes a symbol and frame are kept: 21 MB for an hour of speech in kdkit's letters. Files that cannot be read are
    left out with a warning.
    """
    if isinstance(network, nn.Module):
        network.eval()
    sizes = window_of(network, window)
    began, found = time.perf_counter(), {}
    batches = Batches(utterances, seconds_per_batch)
    for batch in batches.epoch():
        pieces = [
            (utterance.id, piece)
            for utterance, wave, n in zip(batch.utterances, batch.waves, batch.lengths.tolist(), strict=True)
            for piece in windows([wave[:n].numpy()], *sizes)
        ]
        longest = max(len(piece.wave) for _, piece in pieces)
        size = max(1, int(seconds_per_batch * SAMPLE_RATE / longest))
        for i in range(0, len(pieces), size):
            names, group = zip(*pieces[i : i + size], strict=True)
            for name, row in zip(names, hear(network, group), strict=True):
                found.setdefault(name, []).append(row)
    heard = tuple(utterance for utterance in utterances if utterance.id in found)
    seconds = time.perf_counter() - began
    log_probs = tuple(torch.cat(found[u.id]) for u in heard)
    return Emissions(heard, log_probs, seconds, vocabulary_of(network), tuple(batches.skipped))


def decode_all(
    decoder: Decoder,
    log_probs: Sequence[Tensor],
    jobs: int | None = None,
    vocabulary: Vocabulary = VOCABULARY,
) -> list[str]:
    """Texts of emissions (frames, symbols) in their order: beam search in ``jobs`` processes (None: all cores), greedy
    here, because it takes less time than sending it away."""
    if not isinstance(decoder, BeamSearch):
        return [text_of(decoder, row, vocabulary) for row in log_probs]
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs must be 1 or more, not {jobs}")
    size = max(
        1, -(-len(log_probs) // (4 * (jobs or cores())))
    )  # four turns each: none waits long for the last
    tasks = [
        (decoder, [row.numpy() for row in log_probs[i : i + size]], vocabulary)
        for i in range(0, len(log_probs), size)
    ]
    return [text for texts in each(_decode, tasks, jobs) for text in texts]


def _decode(task: tuple[BeamSearch, list, Vocabulary]) -> list[str]:
    decoder, rows, vocabulary = task
    return [text_of(decoder, torch.from_numpy(row), vocabulary) for row in rows]


@dataclass(frozen=True)
class Evaluation:
    """A score and what it cost. ``network`` and ``decoding`` are seconds of wall clock, ``speech`` seconds of audio.

    ``utterances`` are those that were scored. Files that cannot be read are left out, here and wherever the kit scores
    a recogniser; ``skipped`` has (id, reason) of each.
    ``network`` includes reading files and the front-end; ``decoding`` includes starting processes the first time.
    """

    score: Score
    utterances: tuple[Utterance, ...]
    network: float
    decoding: float
    speech: float
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds of computing for each second of speech, from file to text."""
        return (self.network + self.decoding) / self.speech

    @property
    def speakers(self) -> list[str]:
        return [utterance.speaker for utterance in self.utterances]

    def speaker_interval(self, seed: int = 0) -> tuple[float, float]:
        """95 % interval of the WER over speakers (:func:`kdkit.recognition.wer.speaker_interval`)."""
        return speaker_interval(self.score, self.speakers, seed)

    @property
    def cost(self) -> str:
        """The real-time factor and its parts, in words."""
        return (
            f"real-time factor {self.rtf:.4f}, {1 / self.rtf:.0f} times real time: reading and network "
            f"{self.network / self.speech:.4f}, decoding {self.decoding / self.speech:.4f}"
        )


def evaluate(
    network: Network,
    speech: Sequence[Utterance] | Emissions,
    decoder: Decoder = greedy,
    jobs: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Runs and scores a recogniser. ``speech`` may be emissions computed before, which other decoders share; their time
    counts as the network's. ``jobs``: processes that decode."""
    found = speech if isinstance(speech, Emissions) else emissions(network, speech)
    began = time.perf_counter()
    texts = decode_all(decoder, found.log_probs, jobs, found.vocabulary)
    decoding = time.perf_counter() - began
    result = score(found.references, texts, seed, found.vocabulary)
    return Evaluation(result, found.utterances, found.seconds, decoding, found.speech, found.skipped)
