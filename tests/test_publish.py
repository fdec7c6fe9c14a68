"""What prepare writes: all splits or none, none of another division left beside them, and sets told apart by name."""

import os

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from kdkit.commands.main import app
from kdkit.common.errors import ConfigError, ManifestError, OutputError
from kdkit.speech.corpora import prepare
from kdkit.speech.corpora.prepare import Found, check_manifests, publish, take_in
from kdkit.speech.corpora.summary import split_by_speaker
from kdkit.speech.manifest import Utterance, distinct_names, read_manifest, write_manifest, write_manifests


def utterance(folder, name, speaker):
    return Utterance(name, folder / f"{name}.wav", 1.0, "hello", speaker)


def noise(path, seconds=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    soundfile.write(path, 0.1 * rng.standard_normal(round(16_000 * seconds)), 16_000)
    return path


def test_all_splits_are_written_or_none(tmp_path):
    old = utterance(tmp_path, "old", "anna")
    write_manifest(tmp_path / "train.jsonl", [old])
    new = utterance(tmp_path, "new", "ben")
    with pytest.raises(ManifestError, match=r"test\.jsonl: not written.*not Unicode text"):
        write_manifests(
            {
                tmp_path / "train.jsonl": [new],
                tmp_path / "test.jsonl": [utterance(tmp_path, os.fsdecode(b"\xff"), "carl")],
            }
        )
    assert os.listdir(tmp_path) == ["train.jsonl"] and read_manifest(tmp_path / "train.jsonl") == [old]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_manifest(tmp_path / "file" / "m.jsonl", [new])
    with pytest.raises(OutputError, match="cannot be written"):
        publish({"train": [new]}, [], tmp_path / "file")


@pytest.mark.parametrize(
    "command",
    [
        ("prepare", "folder", "nothing"),
        ("prepare", "table", "nothing.csv"),
        ("lm", "nothing.txt"),
        ("align", "no.jsonl"),
    ],
)
def test_a_place_that_cannot_be_written_is_found_first(tmp_path, command):
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "file" / "out")])
    assert isinstance(result.exception, OutputError) and "part of its path is a file" in str(result.exception)


def test_splits_of_another_division_are_not_left_beside_new_ones(tmp_path):
    anna, ben, carl, dora = (utterance(tmp_path, name, name) for name in ("anna", "ben", "carl", "dora"))
    publish({"train": [anna, ben], "dev": [carl], "test": [dora]}, [], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"dev\.jsonl is there from before.*'test' \(recording .*carl"):
        publish({"train": [anna, ben, dora], "test": [carl]}, [], tmp_path)
    other = utterance(tmp_path, "another recording", "carl")
    with pytest.raises(ConfigError, match=r"dev\.jsonl.*'test' \(speaker carl"):
        publish({"train": [anna, ben], "test": [other]}, [], tmp_path)
    with pytest.raises(ConfigError, match=r"test\.jsonl.*'train' \(recording"):
        publish({"train": [dora]}, [], tmp_path, allow_overlap=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    publish({"train": [anna, ben], "test": [other]}, [], tmp_path, allow_overlap=True)  # as asked
    # more of the same kind, and other people, go together
    publish({"test-other": [utterance(tmp_path, "another", "dora")]}, [], tmp_path)
    publish({"train-more": [utterance(tmp_path, "emil", "emil")]}, [], tmp_path)
    (tmp_path / "notes.jsonl").write_text("no manifest")
    publish({"train": [anna]}, [], tmp_path)


def test_digits_of_another_test_speaker_do_not_go_beside_the_old_ones(tmp_path):
    for speaker in ("anna", "ben", "theo"):
        for digit in range(10):
            for number in (0, 7):
                noise(tmp_path / "fsdd" / "recordings" / f"{digit}_{speaker}_{number}.wav")
    root, out = str(tmp_path / "fsdd"), tmp_path / "out"
    arguments = ["prepare", "fsdd", "--root", root, "--out", str(out)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (out / "digits-test.jsonl").rename(out / "theo-test.jsonl")
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    result = CliRunner().invoke(app, [*arguments, "--test-speaker", "anna"])
    assert isinstance(result.exception, ConfigError) and "theo-test.jsonl" in str(result.exception)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before  # the strings' audio, too


def test_unknown_speakers_are_not_one_speaker(tmp_path):
    known = [utterance(tmp_path, f"{name}{i}", name) for name in ("anna", "ben", "carl") for i in range(3)]
    unknown = [utterance(tmp_path, f"x{i}", "") for i in range(5)]
    splits = split_by_speaker(known + unknown, 0.2, 0.2)
    assert set(unknown) <= set(splits["train"]) and splits["dev"] and splits["test"]
    with pytest.raises(ConfigError, match="utterances of unknown speakers cannot be split"):
        split_by_speaker(unknown)
    assert split_by_speaker(unknown, 0, 0) == {"train": unknown}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["a/test.jsonl", "b/test.jsonl"], ["a/test", "b/test"]),
        (["a/test.jsonl", "b/dev.jsonl"], ["test", "dev"]),
        (["x/a/test.jsonl", "x/b/test.jsonl", "y/a/test.jsonl"], ["x/a/test", "b/test", "y/a/test"]),
        (["test-clean", "own/test-clean.jsonl"], ["test-clean", "own/test-clean"]),
        (["test-clean", "test-other"], ["test-clean", "test-other"]),
    ],
)
def test_sets_are_told_apart_by_name(given, names):
    assert distinct_names(given) == names


def test_a_set_that_is_given_twice_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError, match="given twice"):
        distinct_names(["test.jsonl", tmp_path / "test.jsonl"])


def test_manifests_of_one_name_are_both_checked(tmp_path, capsys):
    for part, speaker in (("a", "anna"), ("b", "anna"), ("train", "anna")):
        sound = noise(tmp_path / part / f"{part}.wav")
        write_manifest(tmp_path / part / "test.jsonl", [Utterance(part, sound, 0.1, "hello", speaker)])
    (tmp_path / "train" / "test.jsonl").rename(tmp_path / "train" / "train.jsonl")
    manifests = [tmp_path / "a" / "test.jsonl", tmp_path / "b" / "test.jsonl"]
    assert check_manifests(manifests)
    with pytest.raises(ConfigError, match=r"1 speaker of a/test also in train: anna"):
        check_manifests([*manifests, tmp_path / "train" / "train.jsonl"])


def test_processes_find_what_one_finds(tmp_path, monkeypatch):
    found = [Found(f"u{i}", noise(tmp_path / f"{i}.wav", 0.1 + 0.01 * i)) for i in range(5)]
    found += [Found("gone", tmp_path / "gone.wav"), Found("known", found[0].audio, trouble="known trouble")]
    alone = take_in(found, "test", progress=False)
    monkeypatch.setattr(prepare, "_GROUP", 2)
    monkeypatch.setattr(prepare, "is_much", lambda *_: True)
    assert take_in(found, "test", progress=False) == alone
    assert len(alone.utterances) == 5 and [reason for _, reason in alone.bad][1] == "known trouble"


def test_finetune_has_a_column_for_each_test_set(tmp_path, monkeypatch):
    sets = {}
    for name in ("train", "a", "b"):
        sound = noise(tmp_path / name / "x.wav", 1.0)
        sets[name] = tmp_path / name / "test.jsonl"
        write_manifest(sets[name], [Utterance(name, sound, 1.0, "hello", name)])
    seen = {}

    def no_training(model, budgets, recipe, out, dev=(), tests=None, *_, **more):
        seen.update({name: [u.id for u in some] for name, some in tests.items()})
        raise ConfigError("far enough")

    monkeypatch.setattr("kdkit.recognition.finetune.fine_tune_budgets", no_training)
    arguments = [
        "finetune",
        "tiny-sw-fbank",
        "--data",
        sets["train"],
        "--test",
        sets["a"],
        "--test",
        sets["b"],
    ]
    CliRunner().invoke(app, [*map(str, arguments), "--out", str(tmp_path / "out")])
    assert seen == {"a/test": ["a"], "b/test": ["b"]}
