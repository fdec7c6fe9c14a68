"""Transcription: audio in, text with word times out, for any number of files of any length.

    recogniser = kdkit.Recogniser.load("recogniser.safetensors")
    recogniser("speech.mp3")                            # "the text"
    recogniser(samples, 44_100)                         # an array and its rate
    recogniser.transcribe("speech.mp3").words           # (Word("the", 0.31, 0.38, 0.97), ...)

A file goes through the network in overlapping windows (:func:`kdkit.recognition.network.hear`). Its emissions are cut
in the middle of pauses (:func:`kdkit.recognition.decode.stretch`), and each stretch is decoded, aligned and freed, so
memory does not grow with the file. ``kdkit evaluate`` scores exactly this text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kdkit.common.errors import AudioError, ConfigError, KdkitError
from kdkit.common.machine import best_device
from kdkit.common.parallel import cores, each
from kdkit.recognition.alignment import timed_words
from kdkit.recognition.decode import Decoder, decode_stretches, greedy, stretch
from kdkit.recognition.loading import ready_network
from kdkit.recognition.network import Network, hear, vocabulary_of, window_of
from kdkit.speech.audio import blocks_of_file
from kdkit.speech.frames import HOP, SAMPLE_RATE
from kdkit.speech.stream import Window, blocks_of_array, windows
from kdkit.speech.text import VOCABULARY, Vocabulary

_BATCH = 60.0  # seconds of audio in a batch of windows
_START = 10.0  # seconds that starting processes takes


@dataclass(frozen=True)
class Word:
    """A word, its start and end in seconds, and its score (0 to 1): the mean of the network's probabilities of its
    letters. Words with low scores are worth checking first, but the score is not the probability that the word is
    right: on speech unlike the training speech, words that score 0.8 are wrong.

    CTC emits a letter in a frame or two somewhere within its sound. The times are those of the first and last letter,
    so they lie a little inside the word.
    """

    word: str
    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Transcript:
    """The transcript of one file, or ``error``: why it could not be read."""

    file: str
    text: str = ""
    seconds: float = 0.0
    words: tuple[Word, ...] = ()
    error: str = ""

    def to_dict(self) -> dict:
        """File and error, or file, text, seconds and words, for JSON."""
        if self.error:
            return {"file": self.file, "error": self.error}
        return {key: value for key, value in asdict(self).items() if key != "error"}


class Recogniser:
    """A network and a decoder.

    ``window`` and ``margin`` in seconds (:func:`kdkit.recognition.network.window_of`); by default the window of the
    network, which is as long as the utterances of its fine-tuning.
    """

    def __init__(
        self,
        network: Network,
        decoder: Decoder = greedy,
        window: float | None = None,
        margin: float | None = None,
    ):
        self.network, self.decoder = network, decoder
        self.window, self.margin = window_of(network, window, margin)
        if isinstance(network, nn.Module):
            network.eval()

    @classmethod
    def load(
        cls, path: str | Path, decoder: Decoder = greedy, precision: str = "fp32", **settings
    ) -> Recogniser:
        """Loads a recogniser: a ``.safetensors`` or ``.onnx`` file, a folder or hub id of transformers, the name of a
        shipped one or of a bundle of torchaudio (:func:`kdkit.recognition.loading.load_network`); on the GPU if there
        is one.

        ``decoder``: greedy, or a :class:`kdkit.recognition.decode.BeamSearch`. ``precision``: "fp32", "bf16" or "int8"
        (:func:`kdkit.recognition.loading.ready_network`).
        """
        return cls(ready_network(path, precision), decoder, **settings)

    def __call__(self, audio, rate: int | None = None) -> str:
        """The text of a file (a path), or of samples and their ``rate`` in Hz (also as one pair)."""
        return self.transcribe(audio, rate).text

    def transcribe(self, audio, rate: int | None = None) -> Transcript:
        """Text and word times of a file, or of samples and their ``rate``.

        Raises :class:`AudioError` for audio that cannot be read, :class:`ConfigError` for samples without a rate.
        """
        if isinstance(audio, tuple) and len(audio) == 2 and rate is None:
            audio, rate = audio
        if isinstance(audio, (str, Path)):
            name, blocks = str(audio), blocks_of_file(audio)
        elif rate is None:
            raise ConfigError("samples need their rate: recogniser(samples, 16000)")
        else:
            name, blocks = "", blocks_of_array(audio, rate)
        transcript = next(self._transcripts([(name, blocks)]))
        if transcript.error:
            raise AudioError(transcript.error)
        return transcript

    def transcribe_files(self, paths: Sequence[str | Path]) -> list[Transcript]:
        """Transcripts of many files, in their order; that of a file that cannot be read has an ``error``."""
        # files of like length pad each other less
        order = sorted(range(len(paths)), key=lambda i: _size(paths[i]))
        found = self._transcripts((str(paths[i]), blocks_of_file(paths[i])) for i in order)
        by_place = dict(zip(order, found, strict=True))
        return [by_place[i] for i in range(len(paths))]

    @torch.inference_mode()
    def _transcripts(self, sources: Iterable[tuple[str, Iterator[np.ndarray]]]) -> Iterator[Transcript]:
        """A transcript of each source (name, blocks), in order; windows of neighbouring sources share batches."""
        waiting: list[tuple[_Listener, Window | None]] = []  # None: the source ended with an error
        for name, blocks in sources:
            listener = _Listener(name, self.decoder, vocabulary_of(self.network))
            for window in listener.windows(windows(blocks, self.window, self.margin)):
                waiting.append((listener, window))
                if sum(len(w.wave) for _, w in waiting if w) >= _BATCH * SAMPLE_RATE:
                    yield from self._hear(waiting)
                    waiting = []
        yield from self._hear(waiting)

    def _hear(self, batch: list[tuple[_Listener, Window | None]]) -> Iterator[Transcript]:
        heard = [(listener, window) for listener, window in batch if window]
        try:
            rows = hear(self.network, [window for _, window in heard])
        except RuntimeError:  # such as out of memory: one by one, to find the file
            rows = [listener.guarded(hear, self.network, [window]) for listener, window in heard]
            rows = [row and row[0] for row in rows]
        emissions = iter(rows)
        for listener, window in batch:
            if window is not None:
                listener.guarded(listener.hear, next(emissions), window)
            if window is None or window.last:
                yield listener.guarded(listener.finish) or Transcript(listener.name, error=listener.error)


class _Listener:
    """Collects the emissions of one file, and decodes them stretch by stretch."""

    def __init__(self, name: str, decoder: Decoder, vocabulary: Vocabulary):
        self.name, self.decoder, self.vocabulary, self.error = name, decoder, vocabulary, ""
        self.waiting = torch.zeros(0, len(vocabulary))  # emissions not decoded yet
        self.start = 0  # frames decoded so far
        self.samples, self.words = 0, []

    def guarded(self, function: Callable, *arguments: object) -> object:
        """What ``function`` returns; None when it fails, or an earlier call did. An error of one file does not stop the
        others.
        """
        if self.error:
            return None
        try:
            return function(*arguments)
        except ConfigError:  # affects all files
            raise
        except Exception as error:
            self._fail(error)
            return None

    def windows(self, found: Iterator[Window]) -> Iterator[Window | None]:
        """The windows of the file, followed by None when it cannot be read to its end."""
        try:
            yield from found
        except ConfigError:
            raise
        except Exception as error:
            self._fail(error)
            yield None

    def _fail(self, error: Exception) -> None:
        said = str(error).strip().split("\n")[0]
        if not isinstance(error, KdkitError):
            said = f"{self.name}: cannot be transcribed ({type(error).__name__}: {said})"
        self.error = said if self.name in said else f"{self.name}: {said}"

    def hear(self, log_probs: Tensor, window: Window) -> None:
        """Takes the log-probabilities (frames, symbols) of the next window."""
        if log_probs.isnan().any():
            raise AudioError(
                f"{self.name or 'the audio'}: the network makes no numbers of it: its samples are damaged, or far too "
                "large"
            )
        self.samples = (self.start + len(self.waiting) - window.first) * HOP + len(window.wave)
        self.waiting = torch.cat([self.waiting, log_probs])
        while (cut := stretch(self.waiting, self.vocabulary)) is not None:
            self._decode(cut)

    def finish(self) -> Transcript:
        self._decode(len(self.waiting))
        text = " ".join(word.word for word in self.words)
        return Transcript(self.name, text, round(self.samples / SAMPLE_RATE, 3), tuple(self.words))

    def _decode(self, stop: int) -> None:
        for log_probs, text in decode_stretches(self.decoder, self.waiting[:stop], self.vocabulary):
            self.words += locate_words(log_probs, text, self.start, self.vocabulary)
            self.start += len(log_probs)
        self.waiting = self.waiting[stop:].clone()


def locate_words(
    log_probs: Tensor, text: str, start: int = 0, vocabulary: Vocabulary = VOCABULARY
) -> list[Word]:
    """The words of ``text`` with their times, by the best CTC path through log-probabilities (T, V) that spells it.

    ``start`` frames came before. Raises :class:`TextError` for a text that does not fit into the frames.
    """
    words = text.split()
    times = timed_words(log_probs, words, vocabulary, start)
    return [
        Word(word, round(begin, 4), round(end, 4), round(score, 3))
        for word, (begin, end, score) in zip(words, times, strict=True)
    ]


# ------------------------------------------------------------------------------------------------ many files, all cores


@dataclass(frozen=True)
class Settings:
    """Arguments of :meth:`Recogniser.load`, for other processes."""

    model: str
    decoder: Decoder = greedy
    window: float | None = None
    precision: str = "fp32"


def transcribe_all(
    settings: Settings, paths: Sequence[str | Path], jobs: int | None = None
) -> Iterator[Transcript]:
    """Yields the transcripts of all files in order, as they are done, from ``jobs`` processes.

    ``jobs`` None: one on a GPU; on a CPU the first files are transcribed in this process, and if the time they take
    makes it worthwhile, the rest in one process for each core.
    """
    _recogniser(settings)  # raises errors of the model once
    if jobs is None:
        jobs = 1 if best_device().type != "cpu" else cores()
        first = paths[: 4 * jobs]
        began = time.perf_counter()
        yield from _transcribe((settings, [str(path) for path in first]))
        spent, paths = time.perf_counter() - began, paths[len(first) :]
        left = spent * sum(map(_size, paths)) / max(1, sum(map(_size, first)))
        if left * (1 - 1 / jobs) < _START:
            jobs = 1
    size = max(1, min(32, -(-len(paths) // (4 * max(1, jobs)))))
    groups = [[str(path) for path in paths[i : i + size]] for i in range(0, len(paths), size)]
    for transcripts in each(_transcribe, [(settings, group) for group in groups], jobs):
        yield from transcripts


def _transcribe(task: tuple[Settings, list[str]]) -> list[Transcript]:
    settings, paths = task
    return _recogniser(settings).transcribe_files(paths)


@lru_cache(maxsize=1)
def _recogniser(settings: Settings) -> Recogniser:
    return Recogniser.load(settings.model, settings.decoder, settings.precision, window=settings.window)


def _size(path: str | Path) -> int:
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return 0
