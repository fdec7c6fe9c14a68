"""What a recogniser is worth on a test set: error rates with intervals, and its real-time factor.

:func:`evaluate` reads the speech, transcribes it, scores the texts and says what was left out. Whatever the kit reports
as an error rate comes from it. Emissions can be kept, so that several decoders share them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdkit.common.errors import ConfigError, TextError
from kdkit.common.parallel import cores, each
from kdkit.recognition.decode import BeamSearch, Decoder, greedy, text_of
from kdkit.recognition.network import Network, hear, vocabulary_of, window_of
from kdkit.recognition.wer import Score, score, speaker_interval
from kdkit.speech.batches import Batches
from kdkit.speech.frames import SAMPLE_RATE
from kdkit.speech.manifest import Utterance
from kdkit.speech.stream import windows
from kdkit.speech.text import VOCABULARY, Vocabulary
from kdkit.speech.transcripts import scorable


@dataclass(frozen=True)
class Emissions:
    """Log-probabilities (frames, symbols) of every utterance that could be read, in the order of the manifest."""

    utterances: tuple[Utterance, ...]
    log_probs: tuple[Tensor, ...] = field(repr=False)
    seconds: float  # wall clock, reading included
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
    """Runs ``network`` on ``utterances``, in batches of similar length and windows of ``window`` seconds
    (:func:`kdkit.recognition.network.window_of`).

    Memory: 4 bytes for each symbol and frame, 21 MB for an hour of speech with kdkit's letters. Files that cannot be
    read are left out with a warning.
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
    """The text of each utterance's emissions (frames, symbols), in order.

    Beam search runs in ``jobs`` processes (None: one for each core). Greedy decoding runs here: it takes less time than
    sending the emissions to another process.
    """
    if not isinstance(decoder, BeamSearch):
        return [text_of(decoder, row, vocabulary) for row in log_probs]
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs must be 1 or more, not {jobs}")
    size = max(1, -(-len(log_probs) // (4 * (jobs or cores()))))  # four tasks a process balance the load
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
    """A score, the emissions that were decoded, and the seconds of wall clock that ``decoding`` took, the start of
    processes included.
    """

    score: Score
    emissions: Emissions = field(repr=False)
    decoding: float

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """Those that were scored."""
        return self.emissions.utterances

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(id, reason) of utterances whose files cannot be read; they are not scored."""
        return self.emissions.skipped

    @property
    def speakers(self) -> list[str]:
        return self.emissions.speakers

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds of computing for each second of speech, from file to text."""
        return (self.emissions.seconds + self.decoding) / self.emissions.speech

    def speaker_interval(self, seed: int = 0) -> tuple[float, float]:
        """95 % interval of the WER over speakers (:func:`kdkit.recognition.wer.speaker_interval`)."""
        return speaker_interval(self.score, self.speakers, seed)

    @property
    def cost(self) -> str:
        """The real-time factor and its parts, as a line of text."""
        speech = self.emissions.speech
        return (
            f"real-time factor {self.rtf:.4f}, {1 / self.rtf:.0f} times real time: reading and network "
            f"{self.emissions.seconds / speech:.4f}, decoding {self.decoding / speech:.4f}"
        )


def evaluate(
    network: Network,
    speech: Sequence[Utterance] | Emissions,
    decoder: Decoder = greedy,
    jobs: int | None = None,
    seed: int = 0,
    name: str = "the test set",
    window: float | None = None,
) -> Evaluation:
    """Transcribes and scores labelled speech.

    Left out are utterances without a text, with a warning that names the test set (:func:`labelled`), and those whose
    file cannot be read, with a warning that names the first; :attr:`Evaluation.skipped` lists them.

    Args:
        speech: utterances, or :func:`emissions` of them (of :func:`labelled` ones) to be decoded once more.
        jobs: processes for beam search (:func:`decode_all`). seed: of the bootstrap intervals.
        window: seconds (:func:`kdkit.recognition.network.window_of`).

    Raises :class:`TextError` when no utterance has a text, TrainingError when most files cannot be read.
    """
    if not isinstance(speech, Emissions):
        speech = emissions(network, labelled(speech, name, vocabulary_of(network)), window=window)
    began = time.perf_counter()
    texts = decode_all(decoder, speech.log_probs, jobs, speech.vocabulary)
    decoding = time.perf_counter() - began
    return Evaluation(score(speech.references, texts, seed, speech.vocabulary), speech, decoding)


def labelled(
    utterances: Sequence[Utterance], name: str, vocabulary: Vocabulary = VOCABULARY
) -> list[Utterance]:
    """Utterances that can be scored, with cleaned texts (:func:`kdkit.speech.transcripts.scorable`).

    Warns of what was left out or changed. Raises :class:`TextError` when there are utterances, but none has a text.
    """
    kept, notes = scorable(utterances, name, vocabulary)
    for note in notes:
        warnings.warn(note, stacklevel=3)
    if utterances and not kept:
        raise TextError(
            f"{name}: not one of {len(utterances)} utterances has a text, so there is no error rate"
        )
    return kept
