"""Summary of a corpus, and splits without shared speakers: checks, and how to make them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdkit.common.errors import ConfigError
from kdkit.common.wording import counted
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import Utterance
from kdkit.speech.text import VOCABULARY, frames_needed
from kdkit.speech.transcripts import Cleaning, outside

LONG = 35.0  # seconds: LibriSpeech's longest training utterances are about as long


@dataclass(frozen=True)
class SplitSummary:
    """Figures of one split. ``outside`` counts the utterances in which a character outside the alphabet occurs."""

    utterances: int
    hours: float
    speakers: int  # 0: unknown
    shortest: tuple[float, str]  # seconds, id
    longest: tuple[float, str]
    words: int
    different_words: int
    without_text: int
    outside: dict[str, int]
    left_out: int  # utterances with such a character: fine-tuning leaves them out
    too_long: int  # utterances of more than LONG seconds
    too_fast: tuple[str, ...]  # ids whose text needs more frames than there are: CTC cannot learn from them
    tags: str = ""  # which tags the texts have, in words: none in what prepare wrote

    def __str__(self) -> str:
        size = f"{self.hours:.2f} h" if self.hours >= 1 else f"{60 * self.hours:.1f} min"
        who = counted(self.speakers, "speaker") if self.speakers else "speakers unknown"
        lines = [
            f"{self.utterances} utterances, {size}, {who}, {self.words} words ({self.different_words} different)",
            f"  shortest {self.shortest[0]:.2f} s ({self.shortest[1]}), longest {self.longest[0]:.2f} s "
            f"({self.longest[1]})",
        ]
        if self.without_text:
            lines.append(f"  {self.without_text} utterances have no text: good for distillation only")
        if self.outside:
            shown = ", ".join(f"{c!r} in {n}" for c, n in list(self.outside.items())[:12])
            more = f" and {len(self.outside) - 12} more" if len(self.outside) > 12 else ""
            lines.append(
                f"  characters outside the alphabet (a to z, apostrophe, space): {shown}{more}; "
                f"fine-tuning leaves these {self.left_out} utterances out"
            )
        if self.tags:
            lines.append(f"  {self.tags}")
        if self.too_long:
            lines.append(
                f"  {self.too_long} utterances are longer than {LONG:.0f} s: attention over them takes much time and "
                "memory in training; cut them into sentences"
            )
        if self.too_fast:
            lines.append(
                f"  {len(self.too_fast)} utterances have more letters than frames of 20 ms, so CTC cannot learn from "
                f"them (wrong transcript?): {', '.join(self.too_fast[:5])}{' ...' if len(self.too_fast) > 5 else ''}"
            )
        return "\n".join(lines)


def summarise(utterances: Sequence[Utterance]) -> SplitSummary:
    """The :class:`SplitSummary` of a split; raises :class:`ConfigError` when there is nothing in it."""
    if not utterances:
        raise ConfigError("no utterances to summarise: every file was bad, or none was found")
    by_length = sorted((u.duration, u.id) for u in utterances)
    cleaning, words, too_fast = Cleaning(), Counter(), []
    for utterance in utterances:
        text = cleaning.add(utterance.text)
        words.update(text.split())
        frames = num_frames(utterance.samples)
        if not outside(text) and frames_needed(VOCABULARY.encode(text)) > frames:
            too_fast.append(utterance.id)
    return SplitSummary(
        utterances=len(utterances),
        hours=sum(u.duration for u in utterances) / 3600,
        speakers=len({u.speaker for u in utterances if u.speaker}),
        shortest=by_length[0],
        longest=by_length[-1],
        words=words.total(),
        different_words=len(words),
        without_text=cleaning.empty,
        outside=dict(cleaning.outside.most_common()),
        left_out=cleaning.left_out,
        too_long=sum(u.duration > LONG for u in utterances),
        too_fast=tuple(too_fast),
        tags=cleaning.tags,
    )


def check_speakers(splits: Mapping[str, Sequence[Utterance]], allow_overlap: bool = False) -> list[str]:
    """Rejects test sets whose speakers are in another split; returns notes on other findings.

    Raises :class:`ConfigError` that names splits and speakers when a speaker of a split called test... is also in one
    of another kind, unless ``allow_overlap``. Shared speakers of a dev split are only noted.
    """
    speakers = {name: {u.speaker for u in some if u.speaker} for name, some in splits.items()}
    notes = []
    for name, some in splits.items():
        unknown = sum(not u.speaker for u in some)
        if unknown and len(splits) > 1:
            notes.append(
                f"{name}: the speakers of {counted(unknown, 'utterance')} are unknown, so nobody can say if splits "
                "share any"
            )
    tests = {name for name in splits if kind(name) == "test"}
    names = sorted(splits, key=lambda name: name in tests)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = sorted(speakers[first] & speakers[second])
            if not both or first in tests or not (second in tests or "dev" in first + second):
                continue
            shown = ", ".join(both[:5]) + (" ..." if len(both) > 5 else "")
            told = f"{counted(len(both), 'speaker')} of {second} also in {first}: {shown}"
            if second in tests and not allow_overlap:
                raise ConfigError(
                    f"{told}. A test on voices heard in training says little about new ones: split by speaker, or "
                    "allow it with --allow-speaker-overlap"
                )
            notes.append(told)
    return notes


def split_by_speaker(
    utterances: Sequence[Utterance], dev: float = 0.1, test: float = 0.1, allow_overlap: bool = False
) -> dict[str, list[Utterance]]:
    """Train, dev and test splits by speaker; ``dev`` and ``test`` are shares of the hours, approximately.

    The split of a speaker depends on the speakers' names only; unknown speakers go to train. With ``allow_overlap``
    the split is by utterance.

    Raises :class:`ConfigError` when there are fewer speakers (utterances) than splits.
    """
    if not (0 <= dev < 1 and 0 <= test < 1 and dev + test < 1):
        raise ConfigError(
            f"shares of dev ({dev}) and test ({test}) must be 0 or more and leave something to train on"
        )
    wanted = {name: share for name, share in (("test", test), ("dev", dev)) if share}
    group = (lambda u: u.id) if allow_overlap else (lambda u: u.speaker)
    members: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        members.setdefault(group(utterance), []).append(utterance)
    unknown = members.pop("", [])  # perhaps several speakers: only for training
    if len(members) < len(wanted) + (not unknown):
        named = f"train, {' and '.join(reversed(wanted))}"
        if allow_overlap:
            raise ConfigError(
                f"utterances: {len(members)}, too few to be split into {named}: take more speech, or set the shares of "
                "dev and test to 0"
            )
        who = counted(len(members), "speaker") if members else "utterances of unknown speakers"
        raise ConfigError(
            f"{who} cannot be split into {named} without a voice in two of them: name the speakers, set the shares of "
            "dev and test to 0, or allow it with --allow-speaker-overlap"
        )
    order = sorted(members, key=lambda name: hashlib.sha256(name.encode()).digest())
    total = sum(u.duration for u in utterances)
    splits: dict[str, list[Utterance]] = {name: [] for name in ("train", *reversed(wanted))}
    for place, (name, share) in enumerate(wanted.items(), start=1):
        spare = len(wanted) - place + (not unknown)  # groups that the splits after this one need
        while len(order) > spare:
            here = sum(u.duration for u in splits[name])
            added = sum(u.duration for u in members[order[0]])
            if splits[name] and abs(here + added - share * total) > abs(here - share * total):
                break
            splits[name] += members[order.pop(0)]
    splits["train"] = [u for name in order for u in members[name]] + unknown
    kept = {name: {u.id for u in some} for name, some in splits.items()}
    return {name: [u for u in utterances if u.id in ids] for name, ids in kept.items()}  # in their order


def kind(name: str) -> str:
    """The kind of a split, by its name: "test", "dev" or "train"."""
    return next((kind for kind in ("test", "dev") if kind in name.lower()), "train")
