"""Reads and writes audio files: mono 16 kHz float32 for all of kdkit.

soundfile reads wav, flac, ogg (Vorbis, Opus), mp3, aiff, au, caf, w64 and more;
:mod:`kdkit.speech.formats.containers` finds the audio in them and checks that it is complete. Formats that libsndfile
does not read (m4a, webm, ...) are decoded by ffmpeg (:mod:`kdkit.speech.formats.ffmpeg`). soxr resamples. torchaudio is
not used for files, because from 2.9 on it needs TorchCodec.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from kdkit.common.errors import AudioError
from kdkit.common.files import write_atomically
from kdkit.speech.formats import ffmpeg
from kdkit.speech.formats.containers import parts_of
from kdkit.speech.formats.views import Part, View
from kdkit.speech.frames import RECEPTIVE_FIELD, SAMPLE_RATE

_LIBSNDFILE = "wav flac ogg oga opus mp3 mp2 aif aiff aifc au snd caf w64 rf64 sph gsm"
_FFMPEG = "m4a aac mp4 m4b webm wma mka mkv mov amr 3gp ac3 ape wv tta spx"
_HEADERLESS = "raw pcm"  # reported as unreadable, not passed over
ENDINGS = frozenset(f".{ending}" for ending in f"{_LIBSNDFILE} {_FFMPEG} {_HEADERLESS}".split())

_SECONDS = 10.0  # of a block
_AT_ONCE = 1 << 22  # samples of all channels in a block, at most
_RATES = (1_000, 500_000)  # Hz; others mean a damaged header
_ENDLESS = 1 << 62  # samples: a decoder's value for an unknown length
_LOUDEST = 16.0  # of samples in [-1, 1]: 24 dB above full scale
_CANCELLED = 1e-3  # -30 dB: a mean below it means channels in opposite phase
_SILENT = 1e-8  # -80 dB


def read_audio(path: str | Path) -> Tensor:
    """The waveform (samples,) of an audio file: float32 in [-1, 1], channels averaged, resampled to 16 kHz.

    Raises :class:`AudioError` as :func:`blocks_of_file`, and for a file that is shorter than 400 samples (25 ms, the
    length of one frame) at 16 kHz.
    """
    pieces = list(blocks_of_file(path))
    wave = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
    _check_length(path, len(wave))
    return torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))


def seconds_of(path: str | Path, quick: bool = False) -> float:
    """Duration of the waveform of :func:`read_audio` in seconds, in constant memory; raises what that raises.

    ``quick`` uses the header's length if the file is long enough for it, so damage within the file is not found.
    """
    samples = _promised(Path(path)) if quick else None
    if samples is None:
        samples = sum(map(len, blocks_of_file(path)))
    _check_length(path, samples)
    return samples / SAMPLE_RATE


def blocks_of_file(path: str | Path) -> Iterator[np.ndarray]:
    """Yields the file as mono float32 blocks (samples,) of some ten seconds at 16 kHz, in constant memory.

    Raises :class:`AudioError`, naming the file, when it is missing, empty, truncated, not audio, has no samples, has
    samples that are NaN or far outside [-1, 1], or channels that cancel each other.
    """
    path = Path(path)
    found = 0
    with _opened(path) as file:
        parts = parts_of(path, file)
        for part in parts or [Part()]:
            try:
                sound = _sound(path, file, part, known=parts is not None)
            except (soundfile.SoundFileError, RuntimeError) as error:
                if len(parts or ()) > 1:
                    raise AudioError(
                        f"{path}: damaged at byte {part.start}: {error}; copy it again"
                    ) from error
                pieces = _by_ffmpeg(path, error)
            else:
                pieces = to_mono_16k(_decoded(path, file, sound, part), sound.samplerate, path)
            for piece in pieces:
                found += len(piece)
                yield piece
    if not found:
        raise AudioError(f"{path}: it has 0 samples; leave this file out")


def to_mono_16k(pieces: Iterable[np.ndarray], rate: int, where: object) -> Iterator[np.ndarray]:
    """Pieces (samples, channels) at ``rate`` as pieces (samples,) at 16 kHz; ``where`` is named in errors.

    Raises :class:`AudioError` for samples that are NaN, infinite or far beyond [-1, 1], and for channels that cancel
    each other.
    """
    if not _RATES[0] <= rate <= _RATES[1]:
        raise AudioError(
            f"{where}: a sample rate of {rate} Hz is outside {_RATES[0]} to {_RATES[1]}; is its header damaged?"
        )
    mono = _averaged(pieces, where)
    if rate == SAMPLE_RATE:
        yield from mono
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for piece in mono:
        yield stream.resample_chunk(np.ascontiguousarray(piece))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def write_audio(path: str | Path, wave: Tensor | np.ndarray) -> None:
    """Writes a waveform (samples,) in [-1, 1] as 16-bit wav at 16 kHz, atomically. Louder samples are clipped.

    Raises :class:`AudioError` for another shape or samples that are not finite.
    """
    path = Path(path)
    samples = np.asarray(wave, dtype=np.float32)
    if samples.ndim != 1:
        raise AudioError(f"{path}: expected a waveform of shape (samples,), not {samples.shape}")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: not written: the waveform holds NaN or infinite samples")
    packed = wav_bytes(to_int16(samples))
    write_atomically(path, lambda temporary: temporary.write_bytes(packed))


def wav_bytes(samples: np.ndarray) -> bytes:
    """A wav file of int16 ``samples`` (samples,) at 16 kHz, in memory: libsndfile does not report a full disk."""
    packed = io.BytesIO()
    soundfile.write(packed, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return packed.getvalue()


def to_int16(wave: np.ndarray) -> np.ndarray:
    """[-1, 1] float -> int16, rounded and clipped. The inverse of division by 32768."""
    return np.clip(np.rint(wave * 32768.0), -32768, 32767).astype(np.int16)


# ---------------------------------------------------------------------------------------------------- how it is decoded


class _Sound(soundfile.SoundFile):
    """A sound file read from start to end, for which soundfile needs no length."""

    def seekable(self) -> bool:
        return False


def _opened(path: Path) -> BufferedReader:
    try:
        about = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise AudioError(f"{path}: no such audio file; check the path, or the manifest") from None
    except (OSError, ValueError) as error:  # no access, a name too long or impossible
        raise AudioError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(about.st_mode):
        raise AudioError(f"{path}: a folder, no such audio file; name the files in it")
    if not stat.S_ISREG(about.st_mode):
        raise AudioError(
            f"{path}: a pipe or a device, not a file; write what comes out of it to a file first"
        )
    if about.st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes); copy or download it again")
    try:
        return open(path, "rb")
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened: {error.strerror or error}") from None


def _sound(path: Path, file: BufferedReader, part: Part, known: bool) -> _Sound:
    headerless = path.suffix.lower() in (".raw", ".pcm")
    if headerless and not known:
        raise AudioError(
            f"{path}: samples without a header, so nobody knows their rate and type; convert it first, for instance: "
            f"ffmpeg -f s16le -ar 16000 -i {path.name} {path.stem}.wav"
        )
    if part.beyond is not None and os.name != "nt":
        file.raw.seek(0)  # the decoder shares this place, so it can be seen how far it got
        return _Sound(os.dup(file.fileno()))
    if part.beyond is not None:
        return _Sound(View(file, part.beyond))
    if headerless or not known or not part.is_whole_file:
        return _Sound(View(file, part))  # without a name, by which decoders guess where they know nothing
    return _Sound(str(path) if os.name == "nt" else os.fsencode(path))


def _decoded(path: Path, file: BufferedReader, sound: _Sound, part: Part) -> Iterator[np.ndarray]:
    """Yields blocks (samples, channels) to the end, then compares the length with that of the header."""
    promised, found = part.samples if part.samples is not None else sound.frames, 0
    for piece in _pieces(path, sound, promised):
        found += len(piece)
        yield piece
    if found + part.slack < promised < _ENDLESS:
        raise AudioError(
            f"{path}: truncated or damaged: it should have {promised} samples, {found} could be read; copy it again"
        )
    if part.beyond is not None and (found > promised or file.raw.tell() < path.stat().st_size):
        try:
            with _opened(path) as again:
                found = sum(map(len, _pieces(path, _Sound(View(again, part.beyond)), 0)))
        except AudioError as error:
            raise AudioError(
                f"{path}: damaged: what follows the {promised} samples that its header promises cannot be read; is it "
                "several files in one?"
            ) from error
        if found > promised:
            raise AudioError(
                f"{path}: damaged: its header promises {promised} samples, there are {found}; make it anew"
            )


def _pieces(path: Path, sound: _Sound, promised: int) -> Iterator[np.ndarray]:
    size = max(1, min(round(sound.samplerate * _SECONDS), _AT_ONCE // sound.channels))
    found = 0
    with sound:
        try:
            while True:
                piece = sound.read(
                    min(size, max(promised - found, 1024)) if promised else size, "float32", always_2d=True
                )
                if not len(piece):
                    return
                found += len(piece)
                yield piece
        except (soundfile.SoundFileError, RuntimeError) as error:
            of = f" of {promised}" if 0 < promised < _ENDLESS else ""
            raise AudioError(
                f"{path}: truncated or damaged: it cannot be read on after {found}{of} samples ({error}); copy it again"
            ) from error


def _promised(path: Path) -> int | None:
    """Number of samples at 16 kHz by the header, None if it gives none."""
    with _opened(path) as file:
        parts, total = parts_of(path, file), 0.0
        for part in parts or ():
            if part.endless or part.samples == 0:
                return None
            try:
                with _sound(path, file, part, known=True) as sound:
                    samples = sound.frames if part.samples is None else part.samples
                    if not _RATES[0] <= sound.samplerate <= _RATES[1] or samples >= _ENDLESS:
                        return None
                    total += round(samples * SAMPLE_RATE / sound.samplerate)
            except soundfile.SoundFileError:
                return None
    return round(total) if parts else None


def _averaged(pieces: Iterable[np.ndarray], where: object) -> Iterator[np.ndarray]:
    """(samples, channels) -> (samples,)"""
    start, all_of_them, left = 0, 0.0, 0.0
    for piece in pieces:
        low, high = piece.min(), piece.max()
        if not (low >= -_LOUDEST and high <= _LOUDEST):  # so that NaN fails
            _explain(piece, start, where)
        start += len(piece)
        if piece.shape[1] == 1:
            yield piece[:, 0]
            continue
        mono = piece.mean(axis=1) if piece.shape[1] > 2 else (piece[:, 0] + piece[:, 1]) / 2
        all_of_them += float(np.vdot(piece, piece)) / piece.shape[1]
        left += float(np.dot(mono, mono))
        yield mono
    if left < _CANCELLED * all_of_them and all_of_them > _SILENT * start:
        raise AudioError(
            f"{where}: its channels are in opposite phase, so that their mean is silence; keep one of them, for "
            "instance: ffmpeg -i IN.wav -af pan=mono|c0=c0 OUT.wav"
        )


def _explain(piece: np.ndarray, start: int, where: object) -> None:
    good = (np.abs(piece) <= _LOUDEST).all(axis=1)
    first = int(np.argmin(good))
    value = piece[first][~(np.abs(piece[first]) <= _LOUDEST)][0]
    if not np.isfinite(value):
        raise AudioError(
            f"{where}: sample {start + first} is NaN or infinite; write the file again from its source"
        )
    largest = float(np.abs(piece[np.isfinite(piece)]).max())
    unit = "; these look like 16-bit units: divide by 32768" if 256 < largest <= 32768 else ""
    raise AudioError(
        f"{where}: sample {start + first} is {value:.4g}, but samples lie in [-1, 1]{unit or '; write it again'}"
    )


def _check_length(path: str | Path, samples: int) -> None:
    if samples < RECEPTIVE_FIELD:
        raise AudioError(
            f"{path}: {samples} samples at 16 kHz are fewer than {RECEPTIVE_FIELD} (25 ms, one frame); leave this file "
            "out"
        )


def _by_ffmpeg(path: Path, refused: Exception) -> Iterator[np.ndarray]:
    with ffmpeg.decoded(path, refused) as (rate, pieces):
        yield from to_mono_16k(pieces, rate, path)
