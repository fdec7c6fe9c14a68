"""Speech of one's own: a folder of recordings with a text file beside each, or a table with columns.

A folder:   anna/001.wav  anna/001.txt  ben/001.flac  ben/001.txt     the speaker is the folder's name
or          train/anna/001.wav ...  test/carl/001.wav ...             folders called train, dev, test are splits
A table:    CSV or TSV with a header; columns for the audio, its text and, better, its speaker. Common Voice's layout is
            one: train.tsv, dev.tsv and test.tsv with client_id, path and sentence, the recordings in clips/.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from kdkit.corpora.intake import Found, audio_files
from kdkit.errors import ConfigError, ManifestError

SPLIT_FOLDERS = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "test": "test"}
COLUMNS = {  # what such columns are called by those who publish tables, in the order they are looked for
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
}


def read_folder(folder: str | Path, speaker_pattern: str | None = None) -> dict[str, list[Found]]:
    """Recordings by split: those of the sub-folders train, dev (valid, validation) and test, or all under "".

    The transcript is the text file of the same name; without one there is none. The speaker is the name of the
    first folder below the split, or what the first group of ``speaker_pattern`` finds in the path below it
    ("([a-z]+)_" in "anna_001.wav").

    Raises ManifestError for a folder without recordings, ConfigError for a pattern that is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder; check the path")
    pattern = _pattern(speaker_pattern)
    splits: dict[str, list[Found]] = {}
    for audio in audio_files(folder):
        parts = audio.relative_to(folder).parts
        split = SPLIT_FOLDERS.get(parts[0].lower(), "") if len(parts) > 1 else ""
        below = parts[1:] if split else parts
        speaker = below[0] if len(below) > 1 else ""
        text, trouble = _text_beside(audio)
        if pattern is not None:
            match = pattern.search("/".join(below))
            speaker = match[1] if match else ""
            trouble = trouble if match else f"{audio}: {speaker_pattern!r} finds no speaker in its path"
        name = audio.relative_to(folder).as_posix()
        splits.setdefault(split, []).append(Found(name, audio, text, speaker, trouble=trouble))
    if not splits:
        raise ManifestError(f"{folder}: no audio file (wav, flac, ogg, opus, mp3 ...) anywhere below")
    if "" in splits and len(splits) > 1:
        raise ConfigError(
            f"{folder}: some recordings are in folders called {', '.join(sorted(filter(None, splits)))}, others, such "
            f"as {splits[''][0].audio}, are not: sort all of them, or none"
        )
    return splits


def read_table(
    path: str | Path, audio_folder: str | Path | None = None, columns: dict[str, str] | None = None
) -> dict[str, list[Found]]:
    """Rows of a table by split: by its column "split" if it has one, else all under the file's name without ending.

    ``columns`` names those for "audio", "text", "speaker", "accent" and "split" where :data:`COLUMNS` does not know
    them. Audio is looked for in ``audio_folder`` (default: clips/ beside the table if there is one, else the
    table's folder). Fields of a .tsv are taken as they are, those of a .csv (comma or semicolon) may be quoted.

    Raises ManifestError for a file that is missing, not text, or has no column for the audio.
    """
    path = Path(path)
    header, rows = _rows(path)
    names = {field: _column(header, field, columns or {}, path) for field in COLUMNS}
    clips = path.parent / "clips"
    folder = Path(audio_folder) if audio_folder else clips if clips.is_dir() else path.parent
    splits: dict[str, list[Found]] = {}
    for number, row in rows:
        value = {field: (row.get(name) or "").strip() if name else "" for field, name in names.items()}
        trouble = (
            "" if value["audio"] else f"{path}:{number}: column {names['audio']!r} is empty: no audio file"
        )
        splits.setdefault(value["split"] or path.stem, []).append(
            Found(
                value["audio"],
                folder / value["audio"],
                value["text"],
                value["speaker"],
                value["accent"],
                trouble,
            )
        )
    return splits


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """(names of the columns, [(line, row), ...])"""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such table; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as UTF-8 text ({error}); save it as UTF-8") from error
    first = text.partition("\n")[0]
    if path.suffix.lower() in (".tsv", ".tab") or "\t" in first:
        form = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    else:
        form = {"delimiter": ";" if first.count(";") > first.count(",") else ","}
    reader = csv.DictReader(io.StringIO(text, newline=""), **form)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ManifestError(f"{path}:{reader.line_num}: not a table ({error})") from error
    if not rows:
        raise ManifestError(f"{path}: no rows below the header")
    return [name for name in reader.fieldnames or () if name], rows


def _column(header: list[str], field: str, wanted: dict[str, str], path: Path) -> str | None:
    if wanted.get(field):
        if wanted[field] not in header:
            raise ManifestError(f"{path}: no column {wanted[field]!r}; there are {', '.join(header)}")
        return wanted[field]
    by_name = {name.strip().lower(): name for name in header}
    for name in COLUMNS[field]:
        if name in by_name:
            return by_name[name]
    if field in ("audio", "text"):
        raise ManifestError(
            f"{path}: no column for the {field} ({', '.join(COLUMNS[field])}); there are {', '.join(header)}: name it "
            f"with --{field}-column"
        )
    return None


def _pattern(text: str | None) -> re.Pattern | None:
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(f"--speaker-pattern {text}: not a regular expression ({error})") from error
    if not pattern.groups:
        raise ConfigError(f"--speaker-pattern {text}: put the speaker in brackets, for instance ([a-z]+)_")
    return pattern


def _text_beside(audio: Path) -> tuple[str, str]:
    """(text, trouble)"""
    path = audio.with_suffix(".txt")
    try:
        return path.read_text(encoding="utf-8-sig"), ""
    except FileNotFoundError:
        return "", ""
    except (OSError, UnicodeDecodeError) as error:
        return "", f"{path}: cannot be read as UTF-8 text ({error}); save it as UTF-8"
