"""Audio files in and out: whatever soundfile reads, as mono 16 kHz float32.

soundfile reads wav, flac, ogg (Vorbis, Opus) and mp3; soxr resamples. torchaudio is not used for files: from
2.9 on it needs TorchCodec.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from kdkit.errors import AudioError

SAMPLE_RATE = 16_000  # Hz, everywhere in kdkit
MIN_SAMPLES = 400  # 25 ms: the receptive field of one frame; anything shorter has no frames


def read_audio(path: str | Path) -> Tensor:
    """The waveform (samples,) of an audio file: float32 in [-1, 1], channels averaged, resampled to 16 kHz.

    Raises AudioError, naming the file, if it is missing, empty, truncated, not audio, holds NaN or infinite
    samples, or is shorter than 400 samples (25 ms, the length of one frame) at 16 kHz.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path}: no such audio file; check the path in the manifest")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes); copy or download it again")
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate, promised = file.samplerate, file.frames
            wave = file.read(dtype="float32", always_2d=True)  # (frames, channels)
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        raise AudioError(
            f"{path}: not an audio file that can be read (wav, flac, ogg, mp3): {error}"
        ) from error
    if is_truncated(path, promised, len(wave)):
        raise AudioError(
            f"{path}: truncated: the header promises more than the {len(wave)} samples that could be read; "
            "copy it again"
        )
    if not np.isfinite(wave).all():
        bad = int(np.argmin(np.isfinite(wave).all(axis=1)))
        raise AudioError(f"{path}: sample {bad} is NaN or infinite; write the file again from its source")
    wave = wave.mean(axis=1)  # (frames,)
    if rate != SAMPLE_RATE and len(wave):
        wave = soxr.resample(wave, rate, SAMPLE_RATE)
    if len(wave) < MIN_SAMPLES:
        raise AudioError(
            f"{path}: {len(wave)} samples at 16 kHz are fewer than {MIN_SAMPLES} (25 ms, one frame); "
            "leave this file out"
        )
    return torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))


def write_audio(path: str | Path, wave: Tensor | np.ndarray) -> None:
    """Write a waveform (samples,) in [-1, 1] as 16-bit wav at 16 kHz, atomically. Louder samples are cut."""
    path = Path(path)
    samples = np.asarray(wave, dtype=np.float32)
    if samples.ndim != 1:
        raise AudioError(f"{path}: expected a waveform of shape (samples,), not {samples.shape}")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: not written: the waveform holds NaN or infinite samples")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            soundfile.write(file, to_int16(samples), SAMPLE_RATE, format="WAV", subtype="PCM_16")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def to_int16(wave: np.ndarray) -> np.ndarray:
    """[-1, 1] float -> int16, rounded and clipped. The inverse of division by 32768."""
    return np.clip(np.rint(wave * 32768.0), -32768, 32767).astype(np.int16)


def is_truncated(path: Path, promised: int, found: int) -> bool:
    """Does a file hold less than its header promises? ``found`` samples of ``promised`` could be read."""
    if found < promised:
        return True
    # libsndfile quietly believes the file's size rather than a wav header that promises more
    with open(path, "rb") as file:
        header = file.read(12)
    if header[:4] == b"RIFF" and header[8:12] == b"WAVE":
        size = int.from_bytes(header[4:8], "little")
        # 0 and 0xFFFFFFFF are written by tools that stream to a pipe and cannot know the size
        return size not in (0, 0xFFFFFFFF) and path.stat().st_size + 1 < size + 8
    return False
