"""Manifests: one JSON object a line for each utterance, the format of every corpus.

    {"id": "train-0", "audio": "00000/00.wav", "duration": 2.31, "text": "the key is on the table",
     "speaker": "f1-2", "accent": "en-us", "phones": [[0.0, ""], [0.12, "ð"], [0.15, "ə"]]}

`id`, `audio` and `duration` are required. `audio` is relative to the manifest's folder (or absolute) and names a
whole file; `duration` is in seconds, `phones` gives start time and symbol of each phone, "" being silence. Other
fields are ignored, except those that ask for a piece of a file.

:func:`read_manifest` is where manifests enter: what it returns needs no further checks.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from kdkit.common.errors import ManifestError
from kdkit.common.files import read_text, write_together
from kdkit.speech.frames import HOP, RECEPTIVE_FIELD, SAMPLE_RATE

LONGEST = 1e6  # seconds (11 days): the longest duration accepted

_STRINGS = ("text", "speaker", "accent")
_PIECES = ("start", "end", "offset")  # how other tools' manifests ask for a piece of a file


@dataclass(frozen=True)
class Utterance:
    """One utterance: its audio file and metadata."""

    id: str
    audio: Path  # absolute in memory, relative to the manifest on disk
    duration: float  # seconds
    text: str = ""
    speaker: str = ""
    phones: tuple[tuple[float, str], ...] = ()  # (start in seconds, symbol), sorted; "" is silence
    accent: str = ""

    @property
    def samples(self) -> int:
        """Number of samples at 16 kHz, by the manifest's duration."""
        return round(self.duration * SAMPLE_RATE)


def read_manifest(path: str | Path) -> list[Utterance]:
    """The utterances of a manifest, in its order. Whether the audio exists is seen when it is read.

    Raises ManifestError, naming file, line and field, for a missing or empty manifest, a line that is not a
    JSON object, a field that is missing, occurs twice or has the wrong type, text that is not Unicode (half of a
    surrogate pair), a duration or phone times out of range, a piece of a file (start, end, offset), or an id that
    occurs twice. A byte order mark is no part of the first line.
    """
    path = Path(path)
    missing = "no such manifest; check the path, or build the corpus first"
    lines = read_text(path, ManifestError, missing).split("\n")  # not splitlines: texts may hold U+2028
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
    """Write a manifest atomically: a reader sees the old file or the new one. Audio paths become relative.

    Raises OutputError when the file cannot be written, ManifestError when a field is not Unicode text.
    """
    write_manifests({Path(path): utterances})


def write_manifests(manifests: Mapping[Path, Iterable[Utterance]]) -> None:
    """:func:`write_manifest` for several that belong together: when one cannot be written, all stay as they were."""
    write_together(
        {path: partial(_write_lines, Path(path), utterances) for path, utterances in manifests.items()}
    )


def _write_lines(path: Path, utterances: Iterable[Utterance], temporary: Path) -> None:
    folder = path.parent.resolve()
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            for utterance in utterances:
                file.write(json.dumps(_as_json(utterance, folder), ensure_ascii=False) + "\n")
    except UnicodeEncodeError as error:
        raise ManifestError(
            f"{path}: not written: {error.object!a:.80} is not Unicode text, so the manifest cannot hold it; rename it"
        ) from None


def distinct_names(manifests: Sequence[str | Path]) -> list[str]:
    """A name for each manifest: its file's without ending, with as many folders before it as tell it from the others.

    Other names, such as "test-clean", stay as they are. Raises ManifestError for one that is given twice.
    """
    parts = []
    for given in manifests:
        path = Path(given)
        own = is_manifest(given)
        parts.append((*path.absolute().parent.parts, path.stem) if own else (str(given),))
    names = []
    for i, mine in enumerate(parts):
        others = parts[:i] + parts[i + 1 :]
        if mine in others:
            raise ManifestError(f"{manifests[i]} is given twice")
        depth = next(n for n in count(1) if all(mine[-n:] != other[-n:] for other in others))
        names.append("/".join(mine[-depth:]))
    return names


def is_manifest(name: str | Path) -> bool:
    """Whether a name is that of a manifest's file, rather than of a split of the synthetic speech."""
    return str(name).endswith(".jsonl") or os.path.isfile(name)


def frame_phones(utterance: Utterance, num_frames: int) -> list[str]:
    """The phone under the centre of each 20 ms frame, "" for silence: num_frames symbols.

    Frame t covers samples 320 t to 320 t + 400 at 16 kHz (the receptive field of the waveform CNN), so its centre is at
    (320 t + 200) / 16000 seconds.
    """
    starts = [start for start, _ in utterance.phones]
    symbols = []
    for t in range(num_frames):
        centre = (HOP * t + RECEPTIVE_FIELD // 2) / SAMPLE_RATE
        i = bisect.bisect_right(starts, centre) - 1
        symbols.append(utterance.phones[i][1] if i >= 0 else "")
    return symbols


def _parse(line: str, folder: Path, where: str) -> Utterance:
    fields = json_object(line, where)
    for name in ("id", "audio", "duration"):
        if name not in fields:
            raise ManifestError(
                f"{where}: field {name!r} is missing; every line needs id, audio and duration "
                "(kdkit prepare table makes a manifest of another list)"
            )
    for name in ("id", "audio", *_STRINGS):
        check_string(fields.get(name, ""), name, where)
    for name in ("id", "audio"):
        if not fields[name]:
            raise ManifestError(f"{where}: field {name!r} is empty")
    if "\0" in fields["audio"]:
        raise ManifestError(f"{where}: field 'audio' holds a zero character, which no file name can")
    for name in _PIECES:
        if fields.get(name):  # null and 0 ask for nothing
            raise ManifestError(
                f"{where}: field {name!r} asks for a piece of {fields['audio']}, but a manifest names whole files; "
                "kdkit prepare table cuts pieces out"
            )
    duration = _seconds(fields["duration"], where)
    return Utterance(
        id=fields["id"],
        audio=folder / fields["audio"],
        duration=duration,
        phones=_parse_phones(fields.get("phones", []), where),
        **{name: fields.get(name, "") for name in _STRINGS},
    )


def json_object(line: str, where: str) -> dict[str, object]:
    """The JSON object on a line. Raises ManifestError, naming ``where``, for anything else."""
    try:
        fields = json.loads(line, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"{where}: not JSON ({error.msg} at column {error.colno}); write one object per line"
        ) from None
    except KeyError as error:
        raise ManifestError(f"{where}: field {error} occurs twice; keep one of them") from None
    except RecursionError:
        raise ManifestError(f"{where}: not a manifest line (nested too deeply)") from None
    except ValueError:  # Python's own limit
        raise ManifestError(f"{where}: holds a number of thousands of digits; no field needs one") from None
    if not isinstance(fields, dict):
        raise ManifestError(f"{where}: expected a JSON object, found {type(fields).__name__}")
    return fields


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; KeyError for a name that occurs twice, of which Python would keep the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyError(next(name for name in names if names.count(name) > 1))
    return fields


def check_string(value: object, name: str, where: str) -> None:
    """Raises ManifestError, naming ``where`` and field, for what is no string, or no Unicode text."""
    if not isinstance(value, str):
        raise ManifestError(f"{where}: field {name!r} must be a string, not {_shown(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ManifestError(
            f"{where}: field {name!r} is not Unicode text: {value[error.start]!r} is half of a surrogate pair; write "
            "the manifest again as UTF-8"
        ) from None


def _seconds(value: object, where: str) -> float:
    if not _is_number(value):
        raise ManifestError(f"{where}: field 'duration' must be a number of seconds, not {_shown(value)}")
    if value <= 0:
        raise ManifestError(f"{where}: field 'duration' must be more than 0 seconds, not {value}")
    if not 1 / SAMPLE_RATE <= value <= LONGEST:
        raise ManifestError(
            f"{where}: field 'duration' is {value:.3g} seconds; one sample ({1 / SAMPLE_RATE:.3g} s) to "
            f"{LONGEST:.0e} seconds can be"
        )
    return float(value)


def _parse_phones(phones: object, where: str) -> tuple[tuple[float, str], ...]:
    if not isinstance(phones, list):
        raise ManifestError(
            f"{where}: field 'phones' must be a list of [start, symbol], not {_shown(phones)}"
        )
    parsed, last = [], 0.0
    for phone in phones:
        if not (
            isinstance(phone, list) and len(phone) == 2 and _is_number(phone[0]) and isinstance(phone[1], str)
        ):
            raise ManifestError(
                f"{where}: field 'phones' must hold [start in seconds, symbol] pairs, not {_shown(phone)}"
            )
        check_string(phone[1], "phones", where)
        if not last <= phone[0] <= LONGEST:
            raise ManifestError(
                f"{where}: field 'phones' must be sorted by start time; {_shown(phone)} comes after {last} s"
            )
        last = phone[0]
        parsed.append((float(phone[0]), phone[1]))
    return tuple(parsed)


def _is_number(value: object) -> bool:
    """Whether it is one that float can hold: JSON has integers of any size."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _shown(value: object) -> str:
    """A value for a message of one line: its beginning, if it is long."""
    try:
        text = ascii(value) if isinstance(value, str) else repr(value)
    except ValueError:
        return "an integer of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


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


def subset(utterances: list[Utterance], minutes: float) -> list[Utterance]:
    """The first utterances that together last at least `minutes` (all of them if they last less)."""
    total, chosen = 0.0, []
    for utterance in utterances:
        if total >= minutes * 60:
            break
        total += utterance.duration
        chosen.append(utterance)
    return chosen


def few_voices(utterances: Sequence[Utterance], voices: int, minutes: float) -> list[Utterance]:
    """``minutes`` of speech of so many speakers, equally much of each; they are evenly spread over the sorted names.

    What a speaker has less than their share is not made up for.
    """
    spoken: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        spoken.setdefault(utterance.speaker, []).append(utterance)
    names = sorted(spoken)
    chosen = [names[i * len(names) // voices] for i in range(min(voices, len(names)))]
    return [u for name in chosen for u in subset(spoken[name], minutes / voices)]


def speech_identity(utterances: Sequence[Utterance], times: bool = True) -> dict[str, object]:
    """What tells two sets of utterances apart, without reading their audio: see the keys.

    ``times``: also when the files were last changed, which another copy of the same files does not share.
    """
    facts, sizes, changed = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    for utterance in utterances:
        facts.update(f"{utterance.id}\t{utterance.duration!r}\t{utterance.text}\n".encode("utf-8", "replace"))
        try:
            found = os.stat(utterance.audio)
            size, time = found.st_size, int(found.st_mtime)
        except (OSError, ValueError):  # not there: seen when it is read
            size, time = -1, 0
        sizes.update(f"{size}\n".encode())
        changed.update(f"{time}\n".encode())
    told = {
        "utterances": len(utterances),
        "minutes": round(sum(utterance.duration for utterance in utterances) / 60, 3),
        "ids, durations and texts": "sha256:" + facts.hexdigest()[:16],
        "sizes of the files": "sha256:" + sizes.hexdigest()[:16],
    }
    return told | ({"times of the files": "sha256:" + changed.hexdigest()[:16]} if times else {})
