"""From files that somebody has to utterances that can be trusted: every file is opened, every bad one is named.

A corpus's room finds files and transcripts (:class:`Found`); :func:`take_in` reads them on all cores, measures how
long they are, cleans the text, and sorts out what cannot be used. The utterances come back in an order of their own
(:func:`shuffled`), the same every time, so that the first ten minutes of a manifest are a fair sample of it, and part
of its first hour.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from kdkit.common.errors import AudioError
from kdkit.common.parallel import each
from kdkit.speech.audio import seconds_of
from kdkit.speech.manifest import Utterance
from kdkit.speech.transcripts import Cleaning, all_letters

_GROUP = 64  # recordings that a process reads before it answers
_OPENING = 0.0003  # seconds that opening a file takes, about
_RAW, _PACKED = 2e8, 3e7  # bytes a second that are read of wav files, and of compressed ones


@dataclass(frozen=True)
class Found:
    """A recording and what its corpus says about it, before anything is checked."""

    id: str
    audio: Path
    text: str = ""
    speaker: str = ""
    accent: str = ""
    trouble: str = ""  # why it cannot be used, if its room knows already


@dataclass
class Intake:
    """``utterances`` that can be used, ``bad``: (file, reason) of the others; what became of the texts."""

    utterances: list[Utterance] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    cleaning: Cleaning = field(default_factory=Cleaning)


def take_in(
    found: Iterable[Found], title: str, numbers: bool = False, quick: bool = False, progress: bool = True
) -> Intake:
    """Checks recordings and makes utterances of them.

    Bad are: audio that :func:`kdkit.speech.audio.read_audio` refuses (missing, empty, truncated, not audio, not finite,
    shorter than 25 ms), an id or file that was there before, and a transcript without a word in it. Characters outside
    the vocabulary are no reason (:func:`kdkit.speech.corpora.summary.summarise` counts them). ``numbers`` spells
    numbers out (:mod:`kdkit.speech.spelling`); ``quick`` believes headers where they promise a length, so that damage
    later in a file goes unseen.
    """
    found, result = list(found), Intake(cleaning=Cleaning(all_letters(), numbers))
    ids, files = set(), set()
    checks = _measured(found, quick)
    with tqdm(total=len(found), desc=title, unit="file", mininterval=0.5, disable=not progress) as bar:
        for item, (seconds, reason) in zip(found, checks, strict=True):
            bar.update()
            text = result.cleaning.add(item.text)
            if not reason and item.text and not text:
                reason = f"{item.audio}: no word is left of its transcript {item.text!r:.80}"
            if not reason and (item.id in ids or item.audio in files):
                reason = f"{item.audio}: listed before ({item.id})"
            if reason:
                result.bad.append((str(item.audio), reason))
                continue
            ids.add(item.id)
            files.add(item.audio)
            result.utterances.append(
                Utterance(item.id, item.audio.absolute(), seconds, text, item.speaker, accent=item.accent)
            )
    result.utterances = shuffled(result.utterances)
    return result


def shuffled(utterances: Sequence[Utterance]) -> list[Utterance]:
    """By a hash of their id: an order without pattern that more or fewer utterances do not change."""
    return sorted(utterances, key=lambda u: (hashlib.sha256(u.id.encode()).digest(), u.id))


def _measured(found: Sequence[Found], quick: bool) -> Iterator[tuple[float, str]]:
    """(seconds, why it cannot be used) of recordings in their order: on all cores where that is worth their start."""
    groups = [found[i : i + _GROUP] for i in range(0, len(found), _GROUP)]
    for answers in each(_measure, [(group, quick) for group in groups], None if is_much(found, quick) else 1):
        yield from answers


def is_much(found: Sequence[Found], quick: bool) -> bool:
    """Whether reading recordings takes longer than it takes to start processes: some ten seconds."""
    total = 0.0
    for item in found:
        try:
            speed = _RAW if item.audio.suffix.lower() == ".wav" else _PACKED
            total += _OPENING + (0 if quick else os.stat(item.audio).st_size / speed)
        except (OSError, ValueError):
            continue  # reading it will say what is wrong
        if total > 10:
            return True
    return False


def _measure(task: tuple[Sequence[Found], bool]) -> list[tuple[float, str]]:
    group, quick = task
    answers = []
    for item in group:
        try:
            trouble = item.trouble or _name_trouble(item.audio)
            answers.append((0.0, trouble) if trouble else (seconds_of(item.audio, quick), ""))
        except AudioError as error:
            answers.append((0.0, str(error)))
    return answers


def _name_trouble(path: Path) -> str:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return f"{path}: its name is not Unicode text, so a manifest cannot hold it; rename it"
    return ""
