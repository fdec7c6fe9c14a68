"""Manifests: one JSON object a line for each utterance. Every corpus is read and written in this form.

    {"id": "train-0", "audio": "00000/00.wav", "duration": 2.31, "text": "the key is on the table",
     "speaker": "f1-2", "accent": "en-us", "phones": [[0.0, ""], [0.12, "ð"], [0.15, "ə"]]}

`id`, `audio` and `duration` are required. `audio` is relative to the manifest's folder (or absolute),
`duration` is in seconds, `phones` gives start time and symbol of each phone, "" being silence.
"""

from __future__ import annotations

import bisect
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kdkit.errors import ManifestError

SAMPLES_PER_FRAME = 320  # frame t of the encoder covers samples 320 t to 320 t + 400 at 16 kHz
FRAME_CENTRE = 200
_SAMPLE_RATE = 16_000

_STRINGS = ("text", "speaker", "accent")


@dataclass(frozen=True)
class Utterance:
    """One utterance: where its audio is and what is known about it."""

    id: str
    audio: Path  # absolute in memory, relative to the manifest on disk
    duration: float  # seconds
    text: str = ""
    speaker: str = ""
    phones: tuple[tuple[float, str], ...] = ()  # (start in seconds, symbol), sorted; "" is silence
    accent: str = ""


def read_manifest(path: str | Path) -> list[Utterance]:
    """The utterances of a manifest, in its order. Whether the audio exists is seen when it is read.

    Raises ManifestError, naming file, line and field, for a missing or empty manifest, a line that is not a
    JSON object, a field that is missing or has the wrong type, a duration or phone times out of range, or an
    id that occurs twice.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: texts may hold U+2028
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such manifest; check the path, or build the corpus first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as UTF-8 text ({error}); is this a manifest?") from error
    folder = path.parent.resolve()
    utterances, first_line = [], {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        utterance = _parse(line, folder, f"{path}:{number}")
        if utterance.id in first_line:
            raise ManifestError(
                f"{path}:{number}: id {utterance.id!r} was used on line {first_line[utterance.id]} already; "
                "give every utterance an id of its own"
            )
        first_line[utterance.id] = number
        utterances.append(utterance)
    if not utterances:
        raise ManifestError(f"{path}: the manifest has no utterances; write one JSON object per line")
    return utterances


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest atomically: a reader sees the old file or the new one. Audio paths become relative."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent.resolve()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            for utterance in utterances:
                file.write(json.dumps(_as_json(utterance, folder), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def frame_phones(utterance: Utterance, num_frames: int) -> list[str]:
    """The phone under the centre of each 20 ms frame, "" for silence: num_frames symbols.

    Frame t covers samples 320 t to 320 t + 400 at 16 kHz (the receptive field of the waveform CNN),
    so its centre is at (320 t + 200) / 16000 seconds.
    """
    starts = [start for start, _ in utterance.phones]
    symbols = []
    for t in range(num_frames):
        centre = (SAMPLES_PER_FRAME * t + FRAME_CENTRE) / _SAMPLE_RATE
        i = bisect.bisect_right(starts, centre) - 1
        symbols.append(utterance.phones[i][1] if i >= 0 else "")
    return symbols


def _parse(line: str, folder: Path, where: str) -> Utterance:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"{where}: not JSON ({error.msg} at column {error.colno}); write one object per line"
        ) from None
    except RecursionError:
        raise ManifestError(f"{where}: not a manifest line (nested too deeply)") from None
    if not isinstance(fields, dict):
        raise ManifestError(f"{where}: expected a JSON object, found {type(fields).__name__}")
    for name in ("id", "audio", "duration"):
        if name not in fields:
            raise ManifestError(
                f"{where}: field {name!r} is missing; every line needs id, audio and duration"
            )
    for name in ("id", "audio", *_STRINGS):
        if not isinstance(fields.get(name, ""), str):
            raise ManifestError(f"{where}: field {name!r} must be a string, not {fields[name]!r}")
    for name in ("id", "audio"):
        if not fields[name]:
            raise ManifestError(f"{where}: field {name!r} is empty")
    duration = fields["duration"]
    if not _is_number(duration):
        raise ManifestError(f"{where}: field 'duration' must be a number of seconds, not {duration!r}")
    if duration <= 0:
        raise ManifestError(f"{where}: field 'duration' must be more than 0 seconds, not {duration}")
    return Utterance(
        id=fields["id"],
        audio=folder / fields["audio"],
        duration=float(duration),
        phones=_parse_phones(fields.get("phones", []), where),
        **{name: fields.get(name, "") for name in _STRINGS},
    )


def _parse_phones(phones: object, where: str) -> tuple[tuple[float, str], ...]:
    if not isinstance(phones, list):
        raise ManifestError(f"{where}: field 'phones' must be a list of [start, symbol], not {phones!r}")
    parsed, last = [], 0.0
    for phone in phones:
        if not (
            isinstance(phone, list) and len(phone) == 2 and _is_number(phone[0]) and isinstance(phone[1], str)
        ):
            raise ManifestError(
                f"{where}: field 'phones' must hold [start in seconds, symbol] pairs, not {phone!r}"
            )
        if phone[0] < last:
            raise ManifestError(
                f"{where}: field 'phones' must be sorted by start time; {phone!r} comes after {last} s"
            )
        last = phone[0]
        parsed.append((float(phone[0]), phone[1]))
    return tuple(parsed)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _as_json(utterance: Utterance, folder: Path) -> dict[str, object]:
    try:
        audio = utterance.audio.resolve().relative_to(folder).as_posix()
    except ValueError:  # the audio lies elsewhere: keep it absolute
        audio = utterance.audio.resolve().as_posix()
    fields: dict[str, object] = {"id": utterance.id, "audio": audio, "duration": utterance.duration}
    for name in _STRINGS:
        if getattr(utterance, name):
            fields[name] = getattr(utterance, name)
    if utterance.phones:
        fields["phones"] = [list(phone) for phone in utterance.phones]
    return fields
