"""What one notebook hands to the next, and speech of one's own in a lesson."""

from dataclasses import replace

import pytest

from kdkit.corpora import alignment
from kdkit.lessons import Lesson
from kdkit.manifest import write_manifest


@pytest.fixture
def lesson(tmp_path):
    return Lesson("01_teacher_probing", "test", "smoke", 0, tmp_path / "run")


def test_the_layers_chosen_in_notebook_01_are_those_of_02(lesson, capsys):
    assert lesson.layers() == (4, 8, 12) and "DistilHuBERT's choice" in capsys.readouterr().out
    lesson.keep_layers((1, 7, 12))
    assert lesson.layers() == (1, 7, 12) and "chosen in notebook 01" in capsys.readouterr().out
    assert lesson.layers("HUBERT_BASE") == (4, 8, 12), "chosen for another teacher"


def test_manifests_with_phone_times_are_taken_as_they_are(lesson, utterances, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(alignment, "bundle_aligner", lambda device: pytest.fail("nothing is to be aligned"))
    write_manifest(tmp_path / "a.jsonl", utterances[:3])
    write_manifest(tmp_path / "b.jsonl", utterances[3:])
    first, second = lesson.manifests(str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))
    assert [u.phones for u in first + second] == [u.phones for u in utterances]


def test_missing_phone_times_are_estimated_and_said(lesson, utterances, tmp_path, monkeypatch, capsys):
    aligner = alignment.Aligner("a model of letters", None, ("-", "a"))
    monkeypatch.setattr(alignment, "bundle_aligner", lambda device: aligner)
    monkeypatch.setattr(alignment, "align", lambda u, _: replace(u, phones=((0.0, "a"),)))
    write_manifest(tmp_path / "a.jsonl", [replace(u, phones=()) for u in utterances])
    [found] = lesson.manifests(str(tmp_path / "a.jsonl"))
    assert all(u.phones == ((0.0, "a"),) for u in found)
    record = (lesson.out / "metrics" / "01_teacher_probing.json").read_text(encoding="utf-8")
    assert "are estimates: letters aligned by a model of letters" in record


def test_another_teacher_is_named(lesson, capsys):
    assert lesson.teacher("tiny-dt-fbank").config.front_end == "fbank"
    assert "tiny-dt-fbank: 0.8 M parameters" in capsys.readouterr().out
