"""Prepares a corpus: checks recordings, makes utterances of them, and writes them as manifests with a summary.

The module of a corpus finds files and transcripts (:class:`Found`). :func:`take_in` reads them on all cores, measures
durations, cleans texts, and reports what cannot be used. Its utterances are in a fixed random order (:func:`shuffled`),
so that the first ten minutes of a manifest are a fair sample of it, and part of its first hour. :func:`publish` checks
that no test speaker is in another split, and writes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdkit.common.errors import AudioError, ConfigError, ManifestError
from kdkit.common.files import write_text
from kdkit.common.parallel import each
from kdkit.common.progress import tqdm
from kdkit.speech.audio import seconds_of
from kdkit.speech.corpora.summary import check_speakers, kind, summarise
from kdkit.speech.folders import by_ending
from kdkit.speech.manifest import Utterance, distinct_names, read_manifest, write_manifests
from kdkit.speech.transcripts import Cleaning, all_letters

_GROUP = 64  # recordings in a task of a process
_OPENING = 0.0003  # seconds to open a file, about
_RAW, _PACKED = 2e8, 3e7  # bytes read per second, of wav files and of compressed ones


@dataclass(frozen=True)
class Found:
    """A recording with the metadata of its corpus, before anything is checked."""

    id: str
    audio: Path
    text: str = ""
    speaker: str = ""
    accent: str = ""
    trouble: str = ""  # why it cannot be used, if its corpus's module knows


@dataclass
class Intake:
    """Usable ``utterances``; ``bad``: (file, reason) of the others; what ``cleaning`` did to the texts."""

    utterances: list[Utterance] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    cleaning: Cleaning = field(default_factory=Cleaning)


def take_in(
    found: Iterable[Found], title: str, numbers: bool = False, quick: bool = False, progress: bool = True
) -> Intake:
    """Checks recordings and makes utterances of them.

    Rejected are: audio that :func:`kdkit.speech.audio.read_audio` rejects (missing, empty, truncated, not audio, not
    finite, shorter than 25 ms), a repeated id or file, and a transcript without a word. Characters outside the
    vocabulary are only counted (:func:`kdkit.speech.corpora.summary.summarise`). ``numbers`` spells numbers out
    (:mod:`kdkit.speech.spelling`). ``quick`` reads only headers, where they give a length, so that damage later in a
    file is not found.
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
    """Sorted by a hash of the id: a random order that does not depend on which other utterances there are."""
    return sorted(utterances, key=lambda u: (hashlib.sha256(u.id.encode()).digest(), u.id))


def _measured(found: Sequence[Found], quick: bool) -> Iterator[tuple[float, str]]:
    """(seconds, why it cannot be used) of recordings in order; on all cores if that is worth starting processes."""
    groups = [found[i : i + _GROUP] for i in range(0, len(found), _GROUP)]
    for answers in each(_measure, [(group, quick) for group in groups], None if is_much(found, quick) else 1):
        yield from answers


def is_much(found: Sequence[Found], quick: bool) -> bool:
    """Whether reading the recordings takes longer than starting processes, about ten seconds."""
    total = 0.0
    for item in found:
        try:
            speed = _RAW if item.audio.suffix.lower() == ".wav" else _PACKED
            total += _OPENING + (0 if quick else os.stat(item.audio).st_size / speed)
        except (OSError, ValueError):
            continue  # reported when it is read
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


_SHOWN = 20  # bad files on the screen; all of them are in LEFT_OUT
LEFT_OUT = "left-out.txt"


def intake(
    splits: Mapping[str, Sequence[Found]], numbers: bool = False, quick: bool = False
) -> dict[str, Intake]:
    """:func:`take_in` for each split. Raises ManifestError for a split without a usable file."""
    taken = {
        name: take_in(found, f"reading {name or 'files'}", numbers, quick) for name, found in splits.items()
    }
    for name, one in taken.items():
        if not one.utterances:
            raise ManifestError(
                f"{name or 'corpus'}: none of {len(one.bad)} files can be used; the first: {one.bad[0][1]}"
            )
        if one.cleaning.tags:
            print(f"{name or 'corpus'}: {one.cleaning.tags}")
    return taken


def as_splits(taken: Mapping[str, Intake]) -> tuple[dict[str, list[Utterance]], list[tuple[str, str]]]:
    """An intake as (splits, bad files), for :func:`publish`."""
    bad = [item for one in taken.values() for item in one.bad]
    return {name: one.utterances for name, one in taken.items()}, bad


def publish(
    splits: Mapping[str, Sequence[Utterance]],
    bad: Sequence[tuple[str, str]],
    out: str | Path,
    allow_overlap: bool = False,
    passed: Sequence[tuple[str, str]] = (),
) -> dict[str, Path]:
    """Writes OUT/SPLIT.jsonl for each split, all or none, and OUT/left-out.txt: files that are ``bad``, or were
    ``passed`` over because their ending is not one of audio, with reasons.

    Prints a summary of each split. Raises ConfigError, before anything is written, when a test split shares speakers
    with another one (:func:`kdkit.speech.corpora.summary.check_speakers`), or with an older one in OUT
    (:func:`check_folder`).
    """
    out = Path(out)
    notes = check_speakers(splits, allow_overlap)
    check_folder(out, splits, allow_overlap=allow_overlap)
    paths = {name: out / f"{name}.jsonl" for name in splits}
    write_manifests({paths[name]: utterances for name, utterances in splits.items()})
    for name, utterances in splits.items():
        print(f"{paths[name]}: {summarise(utterances)}")
    for note in notes:
        print(f"note: {note}")
    report(bad, out / LEFT_OUT, passed)
    return paths


def check_folder(
    out: str | Path,
    splits: Mapping[str, Sequence[Utterance]],
    written: Collection[str] = (),
    allow_overlap: bool = False,
) -> None:
    """Rejects a folder with older manifests that conflict with the new ``splits``, because they would be used together.

    Manifests that are overwritten (``splits``, and other names in ``written``) do not count. Raises ConfigError for one
    that shares recordings with a split of another kind (train, dev, test), or speakers if one of the two is a test set.
    """
    for path in sorted(Path(out).glob("*.jsonl")):
        if path.stem in splits or path.stem in written:
            continue
        try:
            old = read_manifest(path)
        except ManifestError:
            continue  # unusable
        for name, new in splits.items():
            if kind(name) == kind(path.stem):
                continue
            shared = {f"recording {u.audio}" for u in old} & {f"recording {u.audio.resolve()}" for u in new}
            if "test" in (kind(name), kind(path.stem)) and not allow_overlap:
                shared |= {f"speaker {u.speaker}" for u in old if u.speaker} & {
                    f"speaker {u.speaker}" for u in new
                }
            if shared:
                raise ConfigError(
                    f"{path} is there from before, and does not go with the new split {name!r} ({min(shared)} is in "
                    "both): delete it, or choose another --out"
                )


def report(
    bad: Sequence[tuple[str, str]], path: Path | None = None, passed: Sequence[tuple[str, str]] = ()
) -> None:
    """Prints the first twenty ``bad`` files and the number ``passed`` over; writes all, with reasons, to ``path``."""
    if path is not None and (bad or passed or path.exists()):
        write_text(path, "".join(f"{reason}\n" for _, reason in [*bad, *passed]))
    if passed:
        print(f"{len(passed)} passed over ({by_ending([file for file, _ in passed])}), see {path}")
    if not bad:
        return
    print(f"{len(bad)} left out:")
    for _, reason in bad[:_SHOWN]:
        print(f"  {reason}")
    if len(bad) > _SHOWN:
        print(f"  ... and {len(bad) - _SHOWN} more" + (f", see {path}" if path else ""))


def check_manifests(paths: Sequence[str | Path], quick: bool = False, allow_overlap: bool = False) -> bool:
    """Reads every file of some manifests and prints summaries; True if there is no error.

    Errors are files that cannot be read and durations that are more than 0.05 s off. Raises as :func:`publish`.
    """
    splits, good = {}, True
    for path, name in zip(map(Path, paths), distinct_names(paths), strict=True):
        utterances = read_manifest(path)
        splits[name] = utterances
        taken = take_in(
            [Found(u.id, u.audio, speaker=u.speaker) for u in utterances], f"reading {path.name}", quick=quick
        )
        measured = {u.id: u.duration for u in taken.utterances}
        bad = taken.bad + [
            (
                str(u.audio),
                f"{u.audio}: lasts {measured[u.id]:.2f} s, the manifest says {u.duration:.2f} s ({u.id})",
            )
            for u in utterances
            if u.id in measured and abs(measured[u.id] - u.duration) > 0.05
        ]
        print(f"{path}: {summarise(utterances)}")
        report(bad)
        good = good and not bad
    for note in check_speakers(splits, allow_overlap):
        print(f"note: {note}")
    return good
