"""A folder of recordings with a text file beside each. For tables: :mod:`kdkit.speech.corpora.tables`.

anna/001.wav  anna/001.txt  ben/001.flac  ben/001.txt              the speaker is the folder's name
train/anna/001.wav ...  test/carl/001.wav ...                      folders called train, dev, test are splits
dev-clean/84/121123/84-121123-0000.flac with 84-121123.trans.txt   LibriSpeech: its subsets are splits
TRAIN/DR1/FCJF0/SA1.WAV with SA1.TXT and SA1.PHN                   TIMIT: the speaker is the last folder
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdkit.common.errors import ConfigError, ManifestError
from kdkit.common.files import read_text
from kdkit.speech.corpora.librispeech import SUBSETS, line_of, transcripts
from kdkit.speech.corpora.prepare import Found
from kdkit.speech.folders import by_ending, contents

SPLIT_FOLDERS = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "test": "test"}
SPLIT_FOLDERS |= {name: name for name in SUBSETS}
_SAMPLES = re.compile(r"\d+\s+\d+\s+")  # TIMIT: first and last sample, before the text


def read_folder(folder: str | Path, speaker_pattern: str | None = None) -> dict[str, list[Found]]:
    """Recordings by split: those of the sub-folders train, dev (valid, validation) and test, or all under "".

    The transcript is in the text file of the same name, if there is one. The speaker is the name of the first folder
    below the split, or what the first group of ``speaker_pattern`` matches in the path below it ("([a-z]+)_" in
    "anna_001.wav"). In the trees of LibriSpeech and TIMIT both are found by their own rules, and subsets are splits.
    :func:`speaker_note` says when folders may not be speakers.

    Raises ManifestError for a folder without recordings, ConfigError for an invalid pattern.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise ManifestError(f"{folder}: no such folder; check the path")
    for name in ("LibriSpeech", "TIMIT"):  # the folder that holds the corpus
        folder = folder / name if (folder / name).is_dir() else folder
    pattern = _pattern(speaker_pattern)
    splits: dict[str, list[Found]] = {}
    lines: dict[Path, dict[str, str]] = {}
    below_folder = contents(folder)
    for audio in below_folder.audio:
        parts = audio.relative_to(folder).parts
        split = SPLIT_FOLDERS.get(parts[0].lower(), "") if len(parts) > 1 else ""
        below = parts[1:] if split else parts
        corpus = _corpus(audio, lines)
        text, trouble = line_of(audio, lines[audio.parent]) if corpus == "LibriSpeech" else _text(audio)
        if corpus == "TIMIT":
            text = _SAMPLES.sub("", text, count=1)
        if corpus:
            speaker = audio.stem.partition("-")[0] if corpus == "LibriSpeech" else audio.parent.name
        else:
            speaker = below[0] if len(below) > 1 else ""
        if pattern is not None:
            match = pattern.search("/".join(below))
            speaker = match[1] if match else ""
            trouble = trouble if match else f"{audio}: {speaker_pattern!r} finds no speaker in its path"
        name = audio.relative_to(folder).as_posix()
        splits.setdefault(split, []).append(Found(name, audio, text, speaker, trouble=trouble))
    if not splits:
        others = by_ending([str(path) for path in below_folder.others])
        raise ManifestError(
            f"{folder}: no audio file (wav, flac, ogg, mp3 ...) anywhere below{others and f'; there are {others}'}"
        )
    if "" in splits and len(splits) > 1:
        raise ConfigError(
            f"{folder}: some recordings are in folders called {', '.join(sorted(filter(None, splits)))}, others, such "
            f"as {splits[''][0].audio}, are not: sort all of them, or none"
        )
    return splits


def speaker_note(splits: Mapping[str, Sequence[Found]]) -> str:
    """A note when there are folders within the speakers' folders, which then may not be speakers; else ""."""
    lines: dict[Path, dict[str, str]] = {}
    deep = [
        item
        for split, found in splits.items()
        for item in found
        if len(Path(item.id).parts) > (3 if split else 2) and not _corpus(item.audio, lines)
    ]
    if not deep:
        return ""
    return (
        f"{len({item.speaker for item in deep})} folders, such as {deep[0].speaker!r}, are taken for speakers and have "
        f"folders in them ({deep[0].id}): if those are the speakers, use --speaker-pattern"
    )


def _corpus(audio: Path, lines: dict[Path, dict[str, str]]) -> str:
    """The corpus whose layout a recording's folder has: "LibriSpeech", "TIMIT" or ""."""
    if audio.parent not in lines:
        lines[audio.parent] = transcripts(audio.parent)
    if lines[audio.parent]:
        return "LibriSpeech"
    return "TIMIT" if _beside(audio, ".phn") else ""


def _text(audio: Path) -> tuple[str, str]:
    """(text, trouble)"""
    path = _beside(audio, ".txt")
    if path is None:
        return "", ""
    if not path.is_file():
        return "", f"{path}: no ordinary file"
    try:
        return read_text(path, ManifestError), ""
    except ManifestError as error:
        return "", str(error)


def _beside(audio: Path, ending: str) -> Path | None:
    """The file of the same name with another ending, in either case."""
    places = (audio.with_suffix(ending), audio.with_suffix(ending.upper()))
    return next((path for path in places if path.exists()), None)


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
