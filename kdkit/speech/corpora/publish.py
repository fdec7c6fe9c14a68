"""The last step of every corpus: fair splits, written as manifests, with what was found and what was left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from kdkit.common.errors import ConfigError, ManifestError
from kdkit.common.files import write_text
from kdkit.speech.corpora.intake import Found, Intake, take_in
from kdkit.speech.corpora.summary import check_speakers, kind, summarise
from kdkit.speech.folders import by_ending
from kdkit.speech.manifest import Utterance, distinct_names, read_manifest, write_manifests

_SHOWN = 20  # bad files on the screen; all of them are in LEFT_OUT
LEFT_OUT = "left-out.txt"


def intake(
    splits: Mapping[str, Sequence[Found]], numbers: bool = False, quick: bool = False
) -> dict[str, Intake]:
    """:func:`kdkit.speech.corpora.intake.take_in` for each split; a split in which nothing can be used is an error."""
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
    """Writes OUT/SPLIT.jsonl for each split, all of them or none; all files that are bad, or were ``passed`` over
    because nothing says that they are audio, with reasons to OUT/left-out.txt.

    Prints a summary of each. Raises ConfigError, before anything is written, when a test split shares speakers with
    another one (:func:`kdkit.speech.corpora.summary.check_speakers`), also with one that is in OUT from before
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
    """Refuses a folder with manifests from before that do not go with new ``splits``: they would be used together.

    Those that are written anew (``splits``, and other names in ``written``) do not matter. Raises ConfigError for one
    that shares recordings with a split of another kind (train, dev, test), or speakers if one of the two is a test set.
    """
    for path in sorted(Path(out).glob("*.jsonl")):
        if path.stem in splits or path.stem in written:
            continue
        try:
            old = read_manifest(path)
        except ManifestError:
            continue  # nobody can use it either
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
    """Prints why files were left out, the first twenty of them, and how many were ``passed`` over; writes all of them
    to ``path``."""
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
    """Opens every file of some manifests, prints their summaries; true if nothing is wrong with them.

    Wrong are files that cannot be read and durations that are more than 0.05 s off. Raises as :func:`publish`.
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
