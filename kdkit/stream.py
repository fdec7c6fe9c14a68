"""Sound of any length, a piece at a time: files are never read whole, so an hour needs no more memory than a minute.

soundfile reads what libsndfile knows (wav, flac, ogg, mp3, aiff, ...); anything else (m4a, webm, ...) goes through the
program ffmpeg where that is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from kdkit.audio import SAMPLE_RATE, is_truncated
from kdkit.errors import AudioError, ConfigError
from kdkit.frontends import HOP

_LIBSNDFILE = "wav flac ogg oga opus mp3 aif aiff aifc au caf w64 rf64"
_FFMPEG = "m4a aac mp4 m4b webm wma mka mkv mov amr 3gp"
SUFFIXES = frozenset(f".{ending}" for ending in f"{_LIBSNDFILE} {_FFMPEG}".split())
_SECONDS = 10.0  # read at once


def blocks_of_file(path: str | Path) -> Iterator[np.ndarray]:
    """The file as mono float32 pieces (samples,) at 16 kHz; a piece is some ten seconds.

    Raises :class:`AudioError`, naming the file, if it is missing, empty, truncated, not audio, or holds NaN or infinite
    samples, as soon as that is seen.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path}: no such audio file; check the path")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes); copy or download it again")
    try:
        file = soundfile.SoundFile(str(path))
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        if shutil.which("ffmpeg"):
            yield from _blocks_of_ffmpeg(path)
            return
        raise AudioError(
            f"{path}: not an audio file that can be read (wav, flac, ogg, mp3; more with ffmpeg installed): {error}"
        ) from error
    with file:
        found = 0
        try:
            pieces = file.blocks(round(file.samplerate * _SECONDS), dtype="float32", always_2d=True)
            for piece in _at_16k(_counted(pieces, path), file.samplerate):
                found += len(piece)
                yield piece
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioError(f"{path}: cannot be read to its end: {error}") from error
        if not found:
            raise AudioError(f"{path}: holds no samples; leave this file out")
        if is_truncated(path, file.frames, file.tell()):
            raise AudioError(
                f"{path}: truncated: the header promises more samples than there are; copy it again"
            )


def blocks_of_array(samples, rate: int) -> Iterator[np.ndarray]:
    """Samples (samples,) or with channels (either way round), float in [-1, 1] or 16-bit integers, as mono at 16 kHz.

    Raises :class:`ConfigError` for another shape or rate and :class:`AudioError` for no samples or NaN.
    """
    array = np.asarray(samples)
    if array.dtype == np.int16:
        array = array / np.float32(32768)
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.floating):
        raise ConfigError(
            f"audio of shape {array.shape} and type {array.dtype}: give (samples,) or (samples, channels), "
            "float or int16"
        )
    if not rate or rate < 1:
        raise ConfigError(f"the sample rate is {rate}: give samples per second, such as 16000")
    if not array.size:
        raise AudioError("the audio holds no samples")
    if array.ndim == 1:
        array = array[:, None]
    elif array.shape[0] < array.shape[1]:  # (channels, samples), as torchaudio has it
        array = array.T
    size = round(rate * _SECONDS)
    pieces = (array[i : i + size].astype(np.float32) for i in range(0, len(array), size))
    yield from _at_16k(_counted(pieces, "the audio"), rate)


def _counted(pieces: Iterable[np.ndarray], where: object) -> Iterator[np.ndarray]:
    """(frames, channels) -> (frames,); refuses samples that are no numbers."""
    start = 0
    for piece in pieces:
        if not np.isfinite(piece).all():
            bad = start + int(np.argmin(np.isfinite(piece).all(axis=1)))
            raise AudioError(
                f"{where}: sample {bad} is NaN or infinite; write the file again from its source"
            )
        start += len(piece)
        yield piece.mean(axis=1)


def _at_16k(pieces: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    if rate == SAMPLE_RATE:
        yield from pieces
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for piece in pieces:
        yield stream.resample_chunk(np.ascontiguousarray(piece))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _blocks_of_ffmpeg(path: Path) -> Iterator[np.ndarray]:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(path)]
    command += ["-f", "f32le", "-ac", "1", "-ar", str(SAMPLE_RATE), "-"]
    size = round(4 * SAMPLE_RATE * _SECONDS)  # bytes
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints)
        try:
            found = 0
            while data := process.stdout.read(size):
                found += len(data)
                yield np.frombuffer(data[: len(data) // 4 * 4], dtype="<f4")
            if process.wait() or not found:
                complaints.seek(0)
                said = complaints.read().decode(errors="replace").strip().splitlines() or [
                    "it holds no sound"
                ]
                raise AudioError(f"{path}: ffmpeg cannot read it: {said[-1]}")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@dataclass(frozen=True)
class Window:
    """A stretch of samples, and which of its frames are kept: those in the middle, where both sides are heard."""

    wave: np.ndarray  # (samples,)
    first: int  # frame
    stop: int | None  # frame; None: all
    last: bool  # of its file


def windows(blocks: Iterable[np.ndarray], window: int, margin: int) -> Iterator[Window]:
    """Cuts a stream of samples into overlapping windows whose kept frames, one after the other, are those of the whole.

    ``window`` and ``margin`` in samples, multiples of 320. Neighbours overlap by two margins; in each the frames of the
    outer margin are dropped, because they would be computed without their surroundings. What is left at the end, up to
    one and a half windows, is one window: a short file is heard in one go.
    """
    if window % HOP or margin % HOP or margin < HOP or window < 4 * margin:
        raise ConfigError(
            f"window {window} and margin {margin} samples: both must be multiples of {HOP}, the margin at least that, "
            "the window at least four margins"
        )
    hop, waiting, first = window - 2 * margin, np.zeros(0, np.float32), 0
    for block in blocks:
        waiting = np.concatenate([waiting, block])
        while len(waiting) > 1.5 * window:
            yield Window(waiting[:window], first, (window - margin) // HOP, False)
            waiting, first = waiting[hop:], margin // HOP
    yield Window(waiting, first, None, True)
