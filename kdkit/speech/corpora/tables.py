"""Tables of recordings: CSV or TSV with a header; columns for the audio, its text and, better, its speaker.

Common Voice's layout is one: train.tsv, dev.tsv and test.tsv with client_id, path and sentence, recordings in clips/.
Files of JSON objects, one a line, are tables too: NeMo's manifests (audio_filepath, text, offset, duration), and
manifests of pieces, which :func:`kdkit.speech.manifest.read_manifest` rejects. With columns for start and end, a row is
a piece of its recording, which :mod:`kdkit.speech.corpora.pieces` cuts out.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

from kdkit.common.errors import ManifestError
from kdkit.common.files import read_text
from kdkit.speech.corpora.pieces import Piece
from kdkit.speech.corpora.prepare import Found
from kdkit.speech.manifest import LONGEST, check_string, json_object

COLUMNS = {  # common names of columns, in order of preference
    "audio": (
        "path",
        "audio",
        "file",
        "filename",
        "file_name",
        "wav",
        "audio_path",
        "audio_filepath",
        "audio_file",
    ),
    "text": ("sentence", "text", "transcript", "transcription", "normalized_text"),
    "speaker": ("client_id", "speaker", "speaker_id", "spk", "spk_id"),
    "accent": ("accents", "accent"),
    "split": ("split", "set", "subset"),
    "start": (
        "start",
        "start_time",
        "begin",
        "begin_time",
        "offset",
        "segment_start",
        "start_ms",
        "begin_ms",
    ),
    "end": ("end", "end_time", "stop", "segment_end", "end_ms", "stop_ms"),
    "length": ("duration", "length", "duration_ms"),  # used only with a start and without an end
}
_SPLIT = re.compile(r"\w[\w.+-]{0,59}")  # it becomes a file's name
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")  # [hours:]minutes:seconds


def read_table(
    path: str | Path, audio_folder: str | Path | None = None, columns: Mapping[str, str] | None = None
) -> dict[str, list[Found]]:
    """Rows of a table by split: by its column "split" if it has one, else all under the file's name without ending.

    ``columns``: names of columns that are not in :data:`COLUMNS`. Audio is looked for in ``audio_folder`` (default:
    clips/ beside the table if there is one, else the table's folder). Fields of a .tsv are taken as they are, those of
    a .csv (comma, semicolon or |) may be quoted. Times are seconds, or milliseconds in a column called ..._ms, or
    h:mm:ss. A row whose number of fields differs from the header's is rejected: its text may be in another column.

    Raises ManifestError for a file that is missing, not text, whose quotes do not match, or that has no column for the
    audio.
    """
    path = Path(path)
    header, rows = _rows(path)
    place = {field: _column(header, field, columns or {}, path) for field in COLUMNS}
    if place["start"] is None and place["end"] is not None:
        raise ManifestError(
            f"{path}: a column {header[place['end']]!r} but none for the start; name it with --start-column"
        )
    if place["start"] is None or place["end"] is not None:
        place["length"] = None
    clips = path.parent / "clips"
    folder = Path(audio_folder) if audio_folder else clips if clips.is_dir() else path.parent
    splits: dict[str, list[Found]] = {}
    for line, row in rows:
        found, split = _found(row, header, place, folder, f"{path}:{line}")
        if split and not _SPLIT.fullmatch(split):
            raise ManifestError(
                f"{path}:{line}: column {header[place['split']]!r}: {split!r:.60} cannot be the name of a split: "
                "letters, digits, - and _ can"
            )
        splits.setdefault(split or path.stem, []).append(found)
    return splits


def _found(
    row: list[str], header: list[str], place: Mapping[str, int | None], folder: Path, where: str
) -> tuple[Found, str]:
    """A row as a recording, and its split."""

    def value(field: str) -> str:
        at = place[field]
        return row[at].strip() if at is not None and at < len(row) else ""

    audio, piece, trouble = value("audio"), None, ""
    if len(row) > len(header) and any(field.strip() for field in row[len(header) :]):
        trouble = (
            f"{where}: {len(row)} fields where the header has {len(header)}; quote texts with the separator"
        )
    elif any(at is not None and at >= len(row) for at in place.values()):
        trouble = f"{where}: {len(row)} fields where the header has {len(header)}"
    elif not audio:
        trouble = f"{where}: column {header[place['audio']]!r} is empty: no audio file"
    elif "\0" in audio:
        trouble = f"{where}: column {header[place['audio']]!r} holds a zero character"
    elif place["start"] is not None:
        try:
            piece = _piece({f: value(f) for f in ("start", "end", "length")}, header, place)
        except ValueError as error:
            trouble = f"{where}: {error}"
    name = audio if piece is None else f"{audio}#{piece}"
    found = Found(
        name, folder / audio.replace("\0", ""), value("text"), value("speaker"), value("accent"), trouble
    )
    return (found if piece is None else piece.of(found)), value("split")


def _piece(values: Mapping[str, str], header: list[str], place: Mapping[str, int | None]) -> Piece | None:
    """The piece that a row gives, None for the whole recording. Raises ValueError for impossible times."""
    times = {}
    for field, text in values.items():
        at = place[field]
        times[field] = None if at is None or not text else _seconds(text, header[at])
    start, end = times["start"] or 0.0, times["end"]
    if times["length"] is not None and times["start"] is not None:  # else the length of the whole
        end = start + times["length"]
    if end is not None and end <= start:
        raise ValueError(f"it ends at {end:g} s, but starts at {start:g} s")
    return Piece(start, end) if start or end is not None else None


def _seconds(text: str, column: str) -> float:
    clock = _CLOCK.fullmatch(text)
    try:
        if clock:
            seconds = 3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3])
        else:
            seconds = float(text.replace(",", "."))
    except (ValueError, OverflowError):
        raise ValueError(f"column {column!r}: {text!r} is no time in seconds") from None
    seconds /= 1000 if column.strip().lower().endswith("_ms") else 1
    if not 0 <= seconds <= LONGEST:  # nor nan
        raise ValueError(f"column {column!r}: {text!r} is no time within a recording")
    return seconds


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(names of the columns, [(line, fields), ...])"""
    text = read_text(path, ManifestError, "no such table; check the path")
    if text.lstrip()[:1] == "{":
        return _json_rows(path, text)
    first = text.partition("\n")[0]
    if path.suffix.lower() in (".tsv", ".tab") or "\t" in first:
        form = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    else:
        form = {"delimiter": max(",;|", key=first.count), "strict": True}
    reader = csv.reader(io.StringIO(text, newline=""), **form)
    rows, line = [], 1
    try:
        for row in reader:
            if row:
                rows.append((line, row))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(
            f"{path}:{line}: not a row of a table ({error}); a field that begins with a quote ends with one, and "
            "quotes within it are doubled"
        ) from error
    header = [name.strip() for name in rows[0][1]] if rows else []
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise ManifestError(f"{path}: {header.count(twice[0])} columns are called {twice[0]!r}; rename one")
    if len(rows) < 2:
        raise ManifestError(f"{path}: no rows below the header")
    return header, rows[1:]


def _json_rows(path: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """:func:`_rows` of JSON objects; a name missing from a line is an empty field."""
    objects = [
        (number, json_object(line, f"{path}:{number}"))
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    header = list(dict.fromkeys(name for _, fields in objects for name in fields))
    rows = []
    for number, fields in objects:
        values = ("" if fields.get(name) is None else fields[name] for name in header)
        row = [value if isinstance(value, str) else json.dumps(value) for value in values]
        for name, value in zip(header, row, strict=True):
            check_string(value, name, f"{path}:{number}")
        rows.append((number, row))
    return header, rows


def _column(header: list[str], field: str, wanted: Mapping[str, str], path: Path) -> int | None:
    there = ", ".join(filter(None, header))
    if wanted.get(field):
        if wanted[field].strip() not in header:
            raise ManifestError(f"{path}: no column {wanted[field]!r}; there are {there}")
        return header.index(wanted[field].strip())
    by_name = {name.lower(): place for place, name in reversed(list(enumerate(header)))}
    for name in COLUMNS[field]:
        if name in by_name:
            return by_name[name]
    if field in ("audio", "text"):
        raise ManifestError(
            f"{path}: no column for the {field} ({', '.join(COLUMNS[field])}); there are {there}: name it with "
            f"--{field}-column"
        )
    return None
