"""Small files of every kind, for the tests of reading: whole, and damaged on purpose."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from kdkit.common.errors import AudioError
from kdkit.speech.audio import SAMPLE_RATE, seconds_of

CASES = Path(__file__).parent / "cases"
SAMPLES = 50_000  # not a multiple of any codec's frame

KINDS = {  # name: how soundfile writes it
    "a.wav": {},
    "big-endian.wav": {"endian": "BIG", "subtype": "PCM_16"},
    "float.wav": {"subtype": "FLOAT"},
    "extensible.wav": {"format": "WAVEX"},
    "ulaw.wav": {"subtype": "ULAW"},
    "a.rf64": {"format": "RF64"},
    "a.w64": {},
    "a.aiff": {},
    "float.aiff": {"subtype": "FLOAT"},
    "a.au": {},
    "a.caf": {},
    "a.sph": {"format": "NIST"},
    "a.flac": {},
    "a.ogg": {"subtype": "VORBIS"},
    "a.opus": {"format": "OGG", "subtype": "OPUS"},
    "a.mp3": {},
}


def sound(samples=SAMPLES):
    rng = np.random.default_rng(0)
    return (0.3 * np.sin(0.05 * np.arange(samples)) + 0.05 * rng.standard_normal(samples)).astype(np.float32)


def write(path, wave=None, rate=SAMPLE_RATE, **how):
    soundfile.write(path, sound() if wave is None else wave, rate, **{**KINDS.get(path.name, {}), **how})
    return path


def change(path, *changes):
    """Overwrites bytes at places."""
    data = bytearray(path.read_bytes())
    for place, new in changes:
        data[place : place + len(new)] = new
    path.write_bytes(data)
    return path


def refused(path, *words, quick=False):
    with pytest.raises(AudioError) as caught:
        seconds_of(path, quick)
    for word in (str(path), *words):
        assert word in str(caught.value), caught.value
    assert "\n" not in str(caught.value)


def find(path, name):
    return path.read_bytes().index(name)
