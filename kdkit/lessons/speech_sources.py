"""Where the lessons' speech comes from, by short names.

    synthetic:train                  a split of the synthetic corpus, of any length; synthetic-2:train, of its version 2
    librispeech:train-clean-100      a subset of LibriSpeech
    librilight:10min-0               a label budget of Libri-Light: 10min-0 to 10min-5, 1h, 10h
    data/mine.jsonl                  a manifest

Downloads and manifests are kept in $KDKIT_CACHE, where ``kdkit prepare`` puts them too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from kdkit.common.errors import ConfigError
from kdkit.common.files import cache_folder
from kdkit.speech.corpora import librispeech
from kdkit.speech.corpora.prepare import as_splits, intake, publish
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.corpora.synthetic.versions import VERSIONS as SYNTHETIC
from kdkit.speech.manifest import Utterance, read_manifest

BUDGETS = (*(f"10min-{fold}" for fold in librispeech.FOLDS), "1h", "10h")
KINDS = {
    "synthetic": tuple(SYNTHETIC[1].minutes),
    "synthetic-2": tuple(SYNTHETIC[2].minutes),
    "librispeech": tuple(librispeech.SUBSETS),
    "librilight": BUDGETS,
}
_MEGABYTES = {  # of LibriSpeech's archives, as openslr.org/12 gives them
    "dev-clean": 337,
    "dev-other": 314,
    "test-clean": 346,
    "test-other": 328,
    "train-clean-100": 6_300,
    "train-clean-360": 23_000,
    "train-other-500": 30_000,
}
_LIMITED_MEGABYTES = 600
_MINUTES = {  # as published; of other sources nobody knows before they are read
    "librispeech:train-clean-100": 100 * 60,
    "librispeech:train-clean-360": 360 * 60,
    "librispeech:train-other-500": 500 * 60,
    "librilight:10min-0": 10,
    "librilight:1h": 60,
    "librilight:10h": 600,
}


def utterances(source: str, minutes: float, folder: Path = Path()) -> list[Utterance]:
    """All utterances of a source, downloaded and read where they are not at hand; of synthetic speech ``minutes``.

    Paths are relative to ``folder``. Raises :class:`ConfigError` for an unknown source, :class:`ManifestError` for a
    manifest that cannot be read, :class:`DownloadError` for speech that cannot be had.
    """
    kind, name = parse(source)
    if kind.startswith("synthetic"):
        return build_synthetic(minutes={name: minutes}, version=2 if kind == "synthetic-2" else 1)[name]
    if kind == "":
        return read_manifest(folder / name)
    manifest = manifest_of(kind, name)
    if not manifest.is_file():
        prepare = _librispeech if kind == "librispeech" else _librilight
        prepare(name)
    return read_manifest(manifest)


def parse(source: str) -> tuple[str, str]:
    """("librispeech", "dev-clean") of "librispeech:dev-clean"; ("", path) of a manifest."""
    kind, colon, name = source.partition(":")
    if not colon or kind not in KINDS:
        return "", source
    if name not in KINDS[kind]:
        raise ConfigError(f"no speech {source!r}: {kind} has {', '.join(KINDS[kind])}")
    return kind, name


def manifest_of(kind: str, name: str) -> Path:
    """Where the manifest of a downloaded source is kept."""
    return cache_folder() / "manifests" / kind / f"{name}.jsonl"


def enough(sources: Sequence[str], minutes: float, one: bool = False) -> list[str]:
    """The first of ``sources`` that have so many minutes together (``one``: up to the one that has them alone)."""
    found, total = [], 0.0
    for source in sources:
        found.append(source)
        total = _MINUTES.get(source, 0.0) + (0.0 if one else total)
        if total >= minutes:
            break
    return found


def megabytes(sources: Iterable[str]) -> int:
    """MB that have to be downloaded for sources: without what is at hand, or never downloaded."""
    archives = {}
    for kind, name in map(parse, sources):
        if kind.startswith("libri") and not manifest_of(kind, name).is_file():
            archive = (kind, name) if kind == "librispeech" else (kind, "")  # all budgets come in one
            archives[archive] = _MEGABYTES.get(name, _LIMITED_MEGABYTES)
    return sum(archives.values())


def _librispeech(subset: str) -> None:
    found = {subset: librispeech.librispeech(cache_folder(), subset)}
    publish(*as_splits(intake(found, quick=True)), manifest_of("librispeech", subset).parent)


def _librilight(_: str) -> None:
    budgets = librispeech.limited_supervision(cache_folder())
    publish(*librispeech.budget_splits(budgets, quick=True), manifest_of("librilight", "1h").parent)
