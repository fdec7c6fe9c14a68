"""eSpeak NG through ctypes: text in, waveform and the exact start of every phone out.

The wheel `espeakng-loader` carries the library (GPL-3, called at run time) and its voices. One engine
lives in each process; the corpus builder starts several processes to use several cores.
"""

from __future__ import annotations

import _ctypes
import ctypes
import sys
import threading
from pathlib import Path

import numpy as np

from kdkit.common.errors import KdkitError

RATE_HZ = 22_050  # eSpeak's own sample rate

_SYNCHRONOUS, _PHONEME_EVENTS, _PHONEME_IPA = 2, 1, 2
_END_OF_LIST, _PHONEME = 0, 7  # espeak_EVENT types
_CHARS_UTF8, _POSITION_CHARACTER = 1, 1
_VOLUME = 50  # of 100: louder variants would clip inside eSpeak
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4}  # espeak_PARAMETER


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Engine:
    """The library, initialised. It holds global state, so there is one in a process."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise KdkitError(
                "synthetic speech needs the package espeakng-loader: pip install espeakng-loader"
            ) from error
        self._library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        self._data = Path(espeakng_loader.get_data_path())
        rate = self._library.espeak_Initialize(
            _SYNCHRONOUS, 0, str(self._data).encode(), _PHONEME_EVENTS | _PHONEME_IPA
        )
        if rate != RATE_HZ:
            raise KdkitError(
                f"eSpeak NG did not start with the data in {self._data}: reinstall espeakng-loader"
            )
        self._c_library = ctypes.CDLL("ucrtbase") if sys.platform == "win32" else ctypes.CDLL(None)
        self._callback = _CALLBACK(self._collect)  # kept: ctypes does not own it
        self._library.espeak_SetSynthCallback(self._callback)
        self._chunks: list[np.ndarray] = []
        self._phones: list[tuple[int, str]] = []

    def close(self) -> None:
        self._library.espeak_Terminate()
        handle = self._library._handle
        if sys.platform == "win32":
            _ctypes.FreeLibrary(handle)
        else:
            _ctypes.dlclose(handle)

    def _collect(self, wave, samples: int, events) -> int:
        if wave and samples > 0:
            self._chunks.append(np.ctypeslib.as_array(wave, (samples,)).copy())
        i = 0
        while events[i].type != _END_OF_LIST:
            if events[i].type == _PHONEME:
                self._phones.append((events[i].sample, events[i].id.string.decode("utf-8", "ignore")))
            i += 1
        return 0

    def synthesise(
        self, text: str, voice: str, rate: int, pitch: int, pitch_range: int
    ) -> tuple[np.ndarray, list[tuple[int, str]]]:
        # always set: eSpeak keeps the state of a voice, which would leak into the next utterance
        # eSpeak ignores a variant it does not know, and would speak with the plain voice
        variant = voice.partition("+")[2]
        known = not variant or (self._data / "voices" / "!v" / variant).is_file()
        if not known or self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise KdkitError(f"eSpeak NG has no voice {voice!r}")
        for name, value in (("rate", rate), ("volume", _VOLUME), ("pitch", pitch), ("range", pitch_range)):
            self._library.espeak_SetParameter(_PARAMETERS[name], int(value), 0)
        self._chunks, self._phones = [], []
        # eSpeak seeds breath noise with the time of day; the noise of its Klatt voices is C's rand()
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._c_library.srand(1)
        data = text.encode()
        status = self._library.espeak_Synth(
            data, ctypes.c_size_t(len(data) + 1), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        if status != 0 or not self._chunks:
            raise KdkitError(f"eSpeak NG could not speak {text!r} with voice {voice!r} (status {status})")
        wave = np.concatenate(self._chunks).astype(np.float32) / 32768.0
        return wave, self._phones


_engine: _Engine | None = None
lock = threading.RLock()
"""Held while the engine speaks; hold it around `restart` and several calls that belong together."""


def synthesise(
    text: str, voice: str, rate: int = 175, pitch: int = 50, pitch_range: int = 50
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Speak `text`: (waveform (samples,) float32 at 22,050 Hz, [(start sample, IPA), ...]).

    `voice` is an eSpeak name such as "en-us+f3"; `rate` is in words per minute (80 to 450), `pitch` and
    `pitch_range` run from 0 to 100. An IPA of "" is a pause. Raises KdkitError for an unknown voice.
    """
    global _engine
    with lock:
        if _engine is None:
            _engine = _Engine()
        return _engine.synthesise(text, voice, rate, pitch, pitch_range)


def restart() -> None:
    """Forget the engine, so that the next call starts a fresh one.

    eSpeak's voices waver: the phase of that wavering is left over from what was spoken before, and neither
    espeak_Terminate nor a new espeak_Initialize resets it. Only loading the library again does. After
    `restart` the same calls in the same order give the same samples, in every process.
    """
    global _engine
    with lock:
        if _engine is not None:
            _engine.close()
            _engine = None
