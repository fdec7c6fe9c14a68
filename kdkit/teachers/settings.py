"""Settings of foreign files, each checked when it is read.

A file can hold anything under the name of a setting: text, nothing, a reference to itself, or nested data that exhausts
memory when printed. So settings are opened only when asked for, one level at a time; errors name file and setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from kdkit.common import validation
from kdkit.common.errors import CheckpointError, ConfigError
from kdkit.common.validation import shown
from kdkit.model.speech_model import LIMITS
from kdkit.model.waveform import KERNELS, STRIDES
from kdkit.speech.frames import SAMPLE_RATE
from kdkit.teachers.safe_pickle import opened

MOST = {name: LIMITS[name] for name in ("heads", "layers", "relative_distance")}
_REQUIRED = object()


class Settings:
    """The names and values in ``values``, which may be a dict or an object of argparse or omegaconf.

    ``where`` is the file, for messages. None and interpolations of omegaconf ("${task.normalize}") count as missing.
    Methods that read take a ``default``; without one, a missing setting raises :class:`CheckpointError`. A value of the
    wrong kind always does.
    """

    def __init__(self, values: object, where: str | Path):
        self.values, self.where = opened(values), where
        if not isinstance(self.values, dict):
            raise CheckpointError(f"{where}: its settings are {shown(self.values)}, not names and values")

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str) -> object:
        """The value of ``name``, opened; None if it is missing."""
        value = opened(self.values.get(name))
        return None if isinstance(value, str) and value.startswith("${") else value

    def section(self, name: str) -> Settings | None:
        """The settings under ``name``, or None if it is missing."""
        return Settings(self.get(name), f"{self.where}: {name}") if name in self else None

    def whole(self, name: str, low: int, high: int, default=_REQUIRED) -> int:
        return self._checked(name, default, lambda value: validation.whole(value, name, low, high))

    def number(self, name: str, low: float, high: float, default=_REQUIRED) -> float:
        return self._checked(name, default, lambda value: validation.number(value, name, low, high))

    def flag(self, name: str, default=_REQUIRED) -> bool:
        return self._checked(name, default, lambda value: validation.flag(value, name))

    def choice(self, name: str, options: tuple[str, ...], default=_REQUIRED) -> str:
        return self._checked(name, default, lambda value: validation.choice(value, name, options))

    def expect(self, name: str, wanted: object) -> None:
        """Raises :class:`CheckpointError` when the setting has another value than ``wanted``; it may be missing."""
        value = self.get(name)
        if value is not None and (type(value) is not type(wanted) or value != wanted):
            raise CheckpointError(f"{self.where}: {name} is {shown(value)}; kdkit's models have {wanted!r}")

    def rate(self, name: str) -> None:
        """Raises :class:`CheckpointError` when the sample rate under ``name``, a number or text, is not 16,000 Hz."""
        value = self.get(name)
        try:
            known = value is None or (not isinstance(value, bool) and float(value) == SAMPLE_RATE)
        except (TypeError, ValueError, OverflowError):
            raise CheckpointError(f"{self.where}: {name} is {shown(value)}, no sample rate in Hz") from None
        if not known:
            raise CheckpointError(
                f"{self.where}: a model for {shown(value)} Hz; kdkit works at {SAMPLE_RATE:,} Hz"
            )

    def _checked(self, name: str, default: object, check: Callable):
        value = self.get(name)
        if value is None:
            if default is not _REQUIRED:
                return default
            raise CheckpointError(
                f"{self.where}: its settings do not say {name!r}; is it a HuBERT, wav2vec 2.0 or WavLM?"
            )
        try:
            return check(value)
        except ConfigError as error:
            raise CheckpointError(f"{self.where}: {error}") from error


def check_convolutions(kernels: object, strides: object, where: str | Path) -> None:
    """Raises :class:`CheckpointError` unless the waveform CNN is HuBERT's, with a frame every 20 ms.

    Students, Fbank front-end, phone labels and word times assume those frames.
    """
    lists = [list(given) if isinstance(given, (list, tuple)) else None for given in (kernels, strides)]
    if any(given is None or not all(type(n) is int and 0 < n < 10**4 for n in given) for given in lists):
        raise CheckpointError(f"{where}: its convolutions are {shown(lists)}, not lists of whole numbers")
    if lists == [list(KERNELS), list(STRIDES)]:
        return
    raise CheckpointError(
        f"{where}: its convolutions have kernels {shown(lists[0])} and strides {shown(lists[1])}, a frame every "
        f"{1000 * math.prod(lists[1]) / SAMPLE_RATE:g} ms; kdkit's models and labels have those of HuBERT, "
        f"{list(KERNELS)} and {list(STRIDES)}, a frame every 20 ms"
    )
