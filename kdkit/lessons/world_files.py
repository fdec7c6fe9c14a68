"""Worlds by name, and of one's own: a TOML or JSON file that names teacher and speech, which all notebooks then take.

    teacher = "hubert_base_ls960"        # whatever load_teacher takes
    unlabelled = "data/train.jsonl"      # manifests (kdkit prepare), relative to this file
    labelled = ["data/10min.jsonl", "data/1h.jsonl"]
    dev = "data/dev.jsonl"
    tests = { test = "data/test.jsonl" }

Optional: ``name``, ``purpose``, ``students`` ("base", HuBERT Base's students, or "tiny"), ``probing`` (two manifests;
default: dev and the first test set), ``finished`` ({preset: model}), ``language_model`` (an ARPA file),
``clusters`` (k-means centroids for a teacher without codebook). Speech may also be ``librispeech:dev-clean`` and the
like (:mod:`kdkit.lessons.speech_sources`). TOML needs Python 3.11, or the package tomli.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from kdkit.common.errors import ConfigError
from kdkit.common.files import read_text
from kdkit.common.validation import shown
from kdkit.common.wording import counted
from kdkit.lessons import speech_sources
from kdkit.lessons.worlds import LIBRISPEECH, TOY, WORLDS, World
from kdkit.model.speech_model import PRESETS
from kdkit.speech.corpora.summary import check_speakers
from kdkit.speech.manifest import Utterance, read_manifest
from kdkit.teachers.load import is_hub_id, is_known

AUTO = "auto"
FILES = (".toml", ".json")
_STUDENTS = {"base": "", "tiny": "tiny-"}
FEWEST = (
    10  # utterances of dev and of a test set: intervals are over utterances, and lessons choose some to show
)
_NEEDED = ("teacher", "unlabelled", "labelled", "dev", "tests")
_KNOWN = (*_NEEDED, "name", "purpose", "students", "probing", "finished", "language_model", "clusters")


def find_world(name: str, device: torch.device | None = None) -> World:
    """A world by its name, from a file (.toml, .json), or "auto": librispeech where there is a GPU, else toy.

    Raises :class:`ConfigError` for an unknown name and for what is wrong in a file.
    """
    if name == AUTO:
        return LIBRISPEECH if device is not None and device.type == "cuda" else TOY
    if name in WORLDS:
        return WORLDS[name]
    if Path(name).suffix in FILES:
        return read_world(Path(name))
    raise ConfigError(
        f"no world {name!r}: choose {AUTO}, {', '.join(WORLDS)}, or the path of a .toml or .json file"
    )


def read_world(path: Path) -> World:
    """The world in a file.

    Raises :class:`ConfigError`, naming file and entry, for what is missing, unknown or of the wrong kind, for a
    teacher, manifest or language model that is not there, for a dev or test set of fewer than 10 utterances, and for a
    test set with speakers of training or dev. Manifests are read, audio and weights are not.
    """
    found = _parse(path)
    for name in found:
        if name not in _KNOWN:
            raise ConfigError(f"{path}: unknown entry {name!r}; known are {', '.join(_KNOWN)}")
    for name in _NEEDED:
        if name not in found:
            raise ConfigError(f"{path}: entry {name!r} is missing; every world needs {', '.join(_NEEDED)}")
    folder = path.resolve().parent
    tests = _table(found["tests"], "tests", path)
    if not tests:
        raise ConfigError(
            f"{path}: entry 'tests' names no test set; write tests = {{ test = \"test.jsonl\" }}"
        )
    tests = {name: _sources(source, f"tests.{name}", path) for name, source in tests.items()}
    speech = {name: _sources(found[name], name, path) for name in ("unlabelled", "labelled", "dev")}
    _check_speech(speech | {f"test set {name}": some for name, some in tests.items()}, path)
    probing = found.get("probing", None)
    if probing is not None and (not isinstance(probing, list) or len(probing) != 2):
        raise ConfigError(
            f"{path}: entry 'probing' is {shown(probing)}: two manifests, to train and to judge probes"
        )
    probing = [_sources(source, "probing", path) for source in probing or ()]
    students = found.get("students", "base")
    if students not in _STUDENTS:
        raise ConfigError(f"{path}: entry 'students' is {shown(students)}: choose {' or '.join(_STUDENTS)}")
    lengths = [u.duration for u in _manifests(speech["unlabelled"], folder)]
    model = _text(found.get("language_model", ""), "language_model", path)
    if model and not (folder / model).is_file():
        raise ConfigError(f"{path}: language_model {folder / model} is not there; make one with kdkit lm")
    return World(
        name=_text(found.get("name", path.stem), "name", path),
        purpose=_text(found.get("purpose", f"your own, from {path.name}"), "purpose", path),
        teacher=_teacher(_text(found["teacher"], "teacher", path), folder, path),
        tests=tests,
        probing=tuple(probing) or (speech["dev"], next(iter(tests.values()))),
        students=_STUDENTS[students],
        lr=TOY.lr if students == "tiny" else World.lr,
        finished=_finished(found.get("finished", {}), folder, path),
        language_model=model,
        clusters=_clusters(found.get("clusters", World.clusters), path),
        utterance_seconds=sum(lengths) / len(lengths) if lengths else World.utterance_seconds,
        folder=folder,
        **speech,
    )


def _parse(path: Path) -> dict:
    text = read_text(path, ConfigError, "no such world file; check the path")
    try:
        found = json.loads(text) if path.suffix == ".json" else _toml(path).loads(text)
    except ValueError as error:  # of either
        raise ConfigError(f"{path}: not {path.suffix[1:].upper()} ({error})") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: entries with names are needed, not {shown(found)}")
    return found


def _toml(path: Path):
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib
        except ImportError:
            raise ConfigError(
                f"{path}: Python 3.10 reads no TOML; pip install tomli, or write the world as .json"
            ) from None
    return tomllib


def _text(value: object, name: str, path: Path) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{path}: entry {name!r} is {shown(value)}: a text is needed")
    return value


def _table(value: object, name: str, path: Path) -> dict:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: entry {name!r} is {shown(value)}: names and values are needed")
    return value


def _sources(value: object, name: str, path: Path) -> tuple[str, ...]:
    some = value if isinstance(value, list) and value else [value]
    return tuple(_text(source, name, path) for source in some)


def _clusters(value: object, path: Path) -> int:
    if type(value) is not int or not 2 <= value <= 10_000:
        raise ConfigError(f"{path}: entry 'clusters' is {shown(value)}: a number from 2 to 10,000 is needed")
    return value


def _teacher(name: str, folder: Path, path: Path) -> str:
    """A known name as it is; a path as it lies beside the world file."""
    if is_known(name):
        return name
    beside = folder / os.path.expanduser(name)
    if beside.exists():
        return str(beside)
    if is_hub_id(name):
        return name
    raise ConfigError(
        f"{path}: teacher {name!r} is neither a name that load_teacher knows nor a file at {beside}; name "
        "hubert_base_ls960, a bundle of torchaudio, a model of the Hugging Face hub, or a file"
    )


def _finished(value: object, folder: Path, path: Path) -> dict[str, str]:
    finished = {}
    for preset, source in _table(value, "finished", path).items():
        if preset not in PRESETS:
            raise ConfigError(f"{path}: finished.{preset}: no such student; known are {', '.join(PRESETS)}")
        finished[preset] = _teacher(_text(source, f"finished.{preset}", path), folder, path)
    return finished


def _check_speech(speech: dict[str, tuple[str, ...]], path: Path) -> None:
    """Every manifest can be read, dev and test sets are long enough, no test set has speakers of another split."""
    splits = {}
    for name, sources in speech.items():
        for source in sources:
            try:
                kind, place = speech_sources.parse(source)
            except ConfigError as error:
                raise ConfigError(f"{path}: {name}: {error}") from None
            if not kind and not (path.resolve().parent / place).is_file():
                raise ConfigError(
                    f"{path}: {name} names {path.resolve().parent / place}, which is not there; make it with kdkit "
                    "prepare, or correct the path (it is relative to the world file)"
                )
        splits[name] = _manifests(sources, path.resolve().parent)
        all_here = not any(speech_sources.parse(source)[0] for source in sources)
        if name not in ("unlabelled", "labelled") and all_here and len(splits[name]) < FEWEST:
            raise ConfigError(
                f"{path}: {name} has {counted(len(splits[name]), 'utterance')}: the lessons' intervals are over "
                f"utterances, and some are shown and heard; give it {FEWEST} or more"
            )
    try:
        check_speakers(splits)
    except ConfigError as error:
        told = str(error).partition(". A test on")[0]
        raise ConfigError(
            f"{path}: {told}. A test on voices heard in training says little about new ones: take a test set of other "
            "speakers (kdkit prepare holds some out)"
        ) from None


def _manifests(sources: tuple[str, ...], folder: Path) -> list[Utterance]:
    """Those of the speech that is in manifests; what has to be downloaded is fair as published."""
    return [u for s in sources if not speech_sources.parse(s)[0] for u in read_manifest(folder / s)]
