"""What libsndfile does not know (m4a, webm, wma, ...), through the program ffmpeg where that is installed."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kdkit.common.errors import AudioError

_AT_ONCE = 1 << 20  # samples of all channels
_LATE = 0.5  # seconds that a container may last longer than its sound
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d\.\d+)")
_CUT = ("partial file", "ended prematurely", "truncat", "exceeds containing")  # what ffmpeg says, and goes on


@contextmanager
def decoded(path: Path, refused: Exception) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """(rate, pieces (samples, channels)) of the first sound in a file that libsndfile ``refused``.

    Raises :class:`AudioError` where there is no ffmpeg, for what it cannot read, and at the end of the pieces for a
    file that ends before its container says.
    """
    reason = str(getattr(refused, "error_string", refused)).rstrip(".")
    if not shutil.which("ffmpeg"):
        raise AudioError(
            f"{path}: not an audio file that can be read (wav, flac, ogg, mp3; more with ffmpeg installed): {reason}"
        ) from refused
    # file: keeps names with a colon from being protocols; the list keeps playlists from fetching anything
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-v", "level+info"]
    command += ["-protocol_whitelist", "file", "-i", f"file:{path}", "-map", "0:a:0"]
    command += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        try:
            header = process.stdout.read(24)
            if len(header) < 24:
                process.wait()
                problems = _problems(log)[1]
                said = problems[-1].replace(f"file:{path}: ", "") if problems else "it holds no sound"
                raise AudioError(
                    f"{path}: not an audio file that can be read ({reason}); ffmpeg cannot read it: {said}"
                )
            begin, _, _, rate, channels = struct.unpack(">5I", header[4:])
            process.stdout.read(begin - 24)
            yield rate, _pieces(path, process, log, rate, channels)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _pieces(
    path: Path, process: subprocess.Popen, log: BinaryIO, rate: int, channels: int
) -> Iterator[np.ndarray]:
    size, found = 4 * channels, 0
    while data := process.stdout.read(size * max(1, _AT_ONCE // channels)):
        piece = np.frombuffer(data[: len(data) // size * size], ">f4").astype(np.float32)
        found += len(data) // size
        yield piece.reshape(-1, channels)
    failed = process.wait()
    promised, problems = _problems(log)
    cut = [line for line in problems if any(words in line.lower() for words in _CUT)]
    if cut:
        raise AudioError(f"{path}: truncated or damaged: {cut[-1]}; copy it again")
    if failed:
        said = problems[-1] if problems else f"status {failed}"
        raise AudioError(f"{path}: ffmpeg cannot read it to its end: {said}; copy it again")
    if found / rate < promised - _LATE:
        raise AudioError(
            f"{path}: truncated or damaged: its header promises {promised:.2f} s, {found / rate:.2f} s could be read; "
            "copy it again"
        )


def _problems(log: BinaryIO) -> tuple[float, list[str]]:
    """(seconds that the container promises, 0 for none; what ffmpeg complained of)"""
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    about = "\n".join(lines).partition("Output #0")[0]
    time = _DURATION.search(about)
    promised = int(time[1]) * 3600 + int(time[2]) * 60 + float(time[3]) if time else 0.0
    # a guess; a film's length
    if "Estimating duration" in about or re.search(r"Stream #0.*: Video: ", about):
        promised = 0.0
    return promised, [
        re.sub(r"\[[^]]*\] ", "", line) for line in lines if "[error]" in line or "[fatal]" in line
    ]
