"""Manifests: what is written is read back, and every bad line is named by file, line and field."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kdkit.common.errors import ManifestError
from kdkit.speech.manifest import Utterance, frame_phones, read_manifest, write_manifest

GOOD = {
    "id": "a",
    "audio": "a.wav",
    "duration": 1.5,
    "text": "hello",
    "speaker": "s",
    "phones": [[0, ""], [0.1, "h"]],
}

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
phones = st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["", "ə", "tʃ", "p"])), max_size=8)


def write_lines(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


@settings(deadline=None, max_examples=25)
@example([("line\u2028separator\x85", "\n", "\x1c", [], 1.0)])
@given(
    fields=st.lists(st.tuples(texts, texts, texts, phones, st.floats(0.01, 1e4)), min_size=1, max_size=5),
)
def test_round_trip(tmp_path_factory, fields):
    folder = tmp_path_factory.mktemp("manifest").resolve()
    utterances = [
        Utterance(f"id {i}", folder / f"{i}.wav", duration, text, speaker, tuple(sorted(starts)), accent)
        for i, (text, speaker, accent, starts, duration) in enumerate(fields)
    ]
    write_manifest(folder / "m.jsonl", utterances)
    assert read_manifest(folder / "m.jsonl") == utterances


def test_audio_is_relative_on_disk_and_absolute_in_memory(tmp_path, monkeypatch):
    folder = tmp_path / "corpus"
    write_manifest(folder / "m.jsonl", [Utterance("a", folder / "deep" / "a.wav", 1.0)])
    assert json.loads((folder / "m.jsonl").read_text())["audio"] == "deep/a.wav"
    folder.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    (found,) = read_manifest(Path("moved/m.jsonl"))
    assert found.audio == tmp_path.resolve() / "moved" / "deep" / "a.wav"


def test_audio_elsewhere_stays_absolute(tmp_path):
    write_manifest(tmp_path / "lists" / "m.jsonl", [Utterance("a", tmp_path / "a.wav", 1.0)])
    (found,) = read_manifest(tmp_path / "lists" / "m.jsonl")
    assert found.audio == (tmp_path / "a.wav").resolve()


def test_writing_is_atomic(tmp_path):
    path = tmp_path / "m.jsonl"
    write_manifest(path, [Utterance("a", tmp_path / "a.wav", 1.0)])

    def broken():
        yield Utterance("b", tmp_path / "b.wav", 1.0)
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        write_manifest(path, broken())
    assert [utterance.id for utterance in read_manifest(path)] == ["a"]
    assert os.listdir(tmp_path) == ["m.jsonl"]


def test_optional_fields_and_blank_lines(tmp_path):
    path = write_lines(tmp_path / "m.jsonl", {"id": "a", "audio": "a.wav", "duration": 2}, "", "  ")
    (found,) = read_manifest(path)
    assert found == Utterance("a", tmp_path.resolve() / "a.wav", 2.0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not json", ["not JSON"]),
        ("[1, 2]", ["JSON object", "list"]),
        ("[" * 100_000, []),
        ({k: v for k, v in GOOD.items() if k != "id"}, ["'id'", "missing"]),
        ({k: v for k, v in GOOD.items() if k != "audio"}, ["'audio'", "missing"]),
        ({k: v for k, v in GOOD.items() if k != "duration"}, ["'duration'", "missing"]),
        ({**GOOD, "id": 7}, ["'id'", "string"]),
        ({**GOOD, "id": ""}, ["'id'", "empty"]),
        ({**GOOD, "audio": None}, ["'audio'", "string"]),
        ({**GOOD, "text": ["a"]}, ["'text'", "string"]),
        ({**GOOD, "duration": "1.5"}, ["'duration'", "number"]),
        ({**GOOD, "duration": True}, ["'duration'", "number"]),
        ({**GOOD, "duration": float("nan")}, ["'duration'", "number"]),
        ({**GOOD, "duration": float("inf")}, ["'duration'", "number"]),
        ({**GOOD, "duration": -1}, ["'duration'", "more than 0"]),
        ({**GOOD, "duration": 0}, ["'duration'", "more than 0"]),
        ({**GOOD, "phones": "ab"}, ["'phones'", "list"]),
        ({**GOOD, "phones": [["a", 0.0]]}, ["'phones'", "pairs"]),
        ({**GOOD, "phones": [[0.0, "a", 1]]}, ["'phones'", "pairs"]),
        ({**GOOD, "phones": [[0.5, "a"], [0.1, "b"]]}, ["'phones'", "sorted"]),
        ({**GOOD, "phones": [[-0.5, "a"]]}, ["'phones'", "sorted"]),
        (GOOD | {"id": "first"}, ["'first'", "line 1"]),
        # integers of any size are JSON, but no floats
        ('{"id": "a", "audio": "a.wav", "duration": 1' + "0" * 5000 + "}", ["thousands of digits"]),
        ({**GOOD, "duration": int("f" * 335, 16)}, ["'duration'", "number of seconds"]),
        ({**GOOD, "phones": [[int("f" * 335, 16), "a"]]}, ["'phones'", "pairs"]),
        ({**GOOD, "duration": 1.7e308}, ["'duration'", "1.7e+308"]),
        ({**GOOD, "duration": 5e-324}, ["'duration'", "one sample"]),
        ({**GOOD, "phones": [[1.7e308, "a"]]}, ["'phones'"]),
        # half of a surrogate pair is JSON, but no Unicode
        ({**GOOD, "id": "\ud800"}, ["'id'", "surrogate"]),
        ({**GOOD, "audio": "\ud800.wav"}, ["'audio'", "surrogate"]),
        ({**GOOD, "text": "a \udfff"}, ["'text'", "surrogate"]),
        ({**GOOD, "speaker": "\ud800"}, ["'speaker'", "surrogate"]),
        ({**GOOD, "accent": "\ud800"}, ["'accent'", "surrogate"]),
        ({**GOOD, "phones": [[0, "\ud800"]]}, ["'phones'", "surrogate"]),
        ({**GOOD, "audio": "a\0.wav"}, ["'audio'", "zero character"]),
        ('{"id": "a", "audio": "a.wav", "id": "b", "duration": 1}', ["'id'", "twice"]),
        # what other tools' manifests say about pieces of files would be passed over
        ({**GOOD, "start": 1.5}, ["'start'", "whole files"]),
        ({**GOOD, "end": 2}, ["'end'", "prepare table"]),
        ({**GOOD, "offset": 0.5}, ["'offset'", "whole files"]),
    ],
)
def test_bad_lines_are_named(tmp_path, line, words):
    path = write_lines(tmp_path / "m.jsonl", {**GOOD, "id": "first"}, "", line)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    for word in (f"{path}:3", *words):
        assert word in str(caught.value)
    assert len(str(caught.value).encode()) < 500 + len(str(path))  # one line that can be printed


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    line = json.dumps({"id": "a", "audio": "a.wav", "duration": 2, "offset": 0, "start": None})
    (tmp_path / "m.jsonl").write_text("\ufeff" + line, "utf-8")
    assert [u.id for u in read_manifest(tmp_path / "m.jsonl")] == ["a"]


def test_missing_empty_and_binary_manifests(tmp_path):
    with pytest.raises(ManifestError, match="no such manifest"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(ManifestError, match="no utterances"):
        read_manifest(write_lines(tmp_path / "m.jsonl", "", ""))
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00\x80RIFF")
    with pytest.raises(ManifestError, match="UTF-8"):
        read_manifest(tmp_path / "b.jsonl")
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path)


@settings(deadline=None)
@given(phones, st.integers(0, 60))
def test_frame_phones_against_a_slow_search(starts, frames):
    utterance = Utterance("a", Path("a.wav"), 1.0, phones=tuple(sorted(starts)))
    expected = []
    for t in range(frames):
        current = ""
        for start, symbol in utterance.phones:
            if start <= (320 * t + 200) / 16_000:
                current = symbol
        expected.append(current)
    assert frame_phones(utterance, frames) == expected


def test_frame_phones_uses_the_centre_of_the_frame():
    utterance = Utterance("a", Path("a.wav"), 1.0, phones=((0.0, ""), (0.0125, "a"), (0.0326, "b")))
    # centres at 12.5, 32.5 and 52.5 ms
    assert frame_phones(utterance, 3) == ["a", "a", "b"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_no_manifest(tmp_path):
    os.mkfifo(tmp_path / "m.jsonl")
    with pytest.raises(ManifestError, match="pipe"):
        read_manifest(tmp_path / "m.jsonl")
