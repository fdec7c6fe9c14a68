"""What one notebook hands to the next, and speech of one's own in a lesson."""

import json
import re
from dataclasses import replace

import pytest
import soundfile

from kdkit import teachers
from kdkit.common.errors import ConfigError
from kdkit.lessons import lesson as lessons
from kdkit.lessons import machines
from kdkit.lessons.experiments import PHONES, Finding
from kdkit.lessons.lesson import Lesson
from kdkit.lessons.profiles import PROFILES
from kdkit.lessons.records import read_results
from kdkit.lessons.worlds import LIBRISPEECH
from kdkit.recognition import alignment
from kdkit.speech.manifest import write_manifest


@pytest.fixture
def lesson(tmp_path):
    return Lesson("01_teacher_probing", "test", "smoke", 0, tmp_path / "run")


def test_the_layers_chosen_in_notebook_01_are_those_of_02(lesson, capsys):
    assert lesson.layers() == (4, 8, 12) and "DistilHuBERT's choice" in capsys.readouterr().out
    lesson.keep_layers((1, 7, 12))
    assert lesson.layers() == (1, 7, 12) and "chosen in notebook 01" in capsys.readouterr().out
    assert lesson.layers("HUBERT_BASE") == (4, 8, 12), "chosen for another teacher"


def test_a_test_set_with_voices_of_another_split_is_refused_when_it_is_read(lesson):
    lesson.world = replace(lesson.world, tests={"test-clean": ("synthetic:dev",)})
    lesson.corpus("dev")
    with pytest.raises(ConfigError, match=r"of test set test-clean also in dev: .*split by speaker"):
        lesson.corpus("test-clean")


def test_manifests_with_phone_times_are_taken_as_they_are(lesson, utterances, tmp_path, monkeypatch):
    monkeypatch.setattr(alignment, "bundle_aligner", lambda device: pytest.fail("nothing is to be aligned"))
    write_manifest(tmp_path / "a.jsonl", utterances[:3])
    write_manifest(tmp_path / "b.jsonl", utterances[3:])
    train, test = lesson.speech(f"{tmp_path}/a.jsonl,{tmp_path}/b.jsonl")
    phones = {u.id: u.phones for u in utterances}
    assert {u.id for u in train} == {"u0", "u1", "u2"} and len(test) == 7
    assert all(u.phones == phones[u.id] for u in train + test)
    with pytest.raises(ConfigError, match="name two manifests"):
        lesson.speech(f"{tmp_path}/a.jsonl")


def test_librispeech_comes_with_another_teacher_and_its_phones_are_estimated(
    lesson, utterances, tmp_path, monkeypatch
):
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path))
    for name, readers in (("dev-clean", ("84", "174")), ("test-clean", ("61", "121"))):
        for reader in readers:
            chapter = tmp_path / "LibriSpeech" / name / reader / "1"
            chapter.mkdir(parents=True)
            lines = []
            for i, utterance in enumerate(utterances[:6]):
                wave, rate = soundfile.read(utterance.audio)
                soundfile.write(chapter / f"{reader}-1-{i:04d}.flac", wave, rate)
                lines.append(f"{reader}-1-{i:04d} A LINE OF A BOOK\n")
            (chapter / f"{reader}-1.trans.txt").write_text("".join(lines))
    aligner = alignment.Aligner("a model of letters", None, ("-", "a"))
    monkeypatch.setattr(alignment, "bundle_aligner", lambda device: aligner)
    monkeypatch.setattr(alignment, "estimate_phones", lambda u, _: replace(u, phones=((0.0, "a"),)))
    train, test = lesson.speech(teacher="HUBERT_BASE")
    assert all(u.phones == ((0.0, "a"),) and u.text == "a line of a book" for u in train + test)
    voices = [[u.speaker for u in part[:5]] for part in (train, test)]
    assert {len(set(part[:4])) for part in voices} == {1} and {len(set(part)) for part in voices} == {2}
    record = (lesson.out / "metrics" / "01_teacher_probing.json").read_text(encoding="utf-8")
    assert "Phone times of librispeech are estimates: letters aligned by a model of letters" in record


def test_a_study_of_several_lengths_shows_what_the_length_changes(lesson):
    def found(name, steps, share):
        return Finding(name, 0, (round(100 * share),) * 9, (100,) * 9, PHONES, steps)

    study = [found("base", 200, 0.5), found("a", 200, 0.4), found("base", 800, 0.6), found("a", 800, 0.7)]
    lesson.study("of a", study[:2], "One length.")
    lesson.study("of b", [*study, found("short", 200, 0.3)], "Two lengths, which one trial has not.")
    results = read_results(lesson.out, "01_teacher_probing")
    assert {name for name in results["metrics"] if name.startswith("of a")} == {
        "of a/base", "of a/a", "of a/a against base"
    }  # fmt: skip
    turned = [results["metrics"][f"of b/a against base, {n} steps"]["verdict"] for n in (200, 800)]
    assert turned == ["worse", "better"]
    (figure,) = (
        item for item in results["items"] if item.get("name") == "of b, over steps" and "file" in item
    )
    assert "against “base”" in figure["caption"]
    assert "The verdict turns: a" in json.dumps(results["items"])
    assert "short" not in figure["alt"]


def test_another_teacher_is_named(lesson, capsys):
    assert lesson.teacher("tiny-dt-fbank").config.front_end == "fbank"
    assert "tiny-dt-fbank: 0.8 M parameters" in capsys.readouterr().out


def test_models_from_another_folder_are_not_called_shipped(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KDKIT_ASSETS", str(tmp_path))
    Lesson("02_x", "X", profile="smoke", seed=0, out=tmp_path / "out")
    assert "nothing that ships with the kit is in this run" in capsys.readouterr().out
    note = next(item for item in read_results(tmp_path / "out", "02_x")["items"] if item["name"] == "shipped")
    assert "KDKIT_ASSETS" in note["text"]


def test_a_lesson_in_a_world_of_ones_own_trains_what_is_missing(utterances, tmp_path, monkeypatch, capsys):
    said = [replace(u, text="a line of a book") for u in utterances]
    for name in ("train", "dev", "test"):
        write_manifest(tmp_path / f"{name}.jsonl", [replace(u, speaker=name) for u in said])
    speech = {"unlabelled": "train.jsonl", "labelled": "train.jsonl", "dev": "dev.jsonl"}
    world = speech | {"teacher": "tiny", "students": "tiny", "tests": {"test": "test.jsonl"}}
    world["finished"] = {"tiny-sw-waveform": "tiny-sw-waveform"}
    (tmp_path / "mine.json").write_text(json.dumps(world))
    lesson = Lesson("02_x", "X", "smoke", 0, tmp_path / "run", world=str(tmp_path / "mine.json"))
    assert "world mine (your own, from mine.json)" in capsys.readouterr().out
    unlabelled, test = lesson.corpus("unlabelled", "test")
    assert {u.speaker for u in unlabelled} == {"train"} and {u.speaker for u in test} == {"test"}
    assert [{u.speaker for u in part} for part in lesson.speech()] == [{"dev"}, {"test"}]
    assert lesson.student("tiny-sw-waveform")[1]["origin"] == "published"
    for _ in range(2):
        assert lesson.student("tiny-dt-fbank")[1]["origin"] == "run"
    assert capsys.readouterr().out.count("tiny-dt-fbank is not there: distilled now, 4 steps") == 1
    assert {meta["start"] for _, meta in lesson.recognisers().values()} == {"distilled", "scratch"}


def test_what_the_machine_cannot_hold_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "check_machine", refuse)
    with pytest.raises(ConfigError, match="too small"):
        Lesson("02_x", "X", "smoke", 0, tmp_path / "run", world="librispeech")
    assert not (tmp_path / "run").exists()


def refuse(world, splits, seconds, device):
    assert world is LIBRISPEECH and {"unlabelled", "train", "test-other"} <= set(splits)
    raise ConfigError("too small")


def test_the_opening_says_what_to_expect_on_a_known_gpu_and_how_to_keep_it_on_colab(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    Lesson("02_x", "X", "smoke", 0, tmp_path / "run")
    said = capsys.readouterr().out
    assert "expected on" not in said and "mount a Drive" in said and "$KDKIT_CACHE" in said
    t4 = next(gpu for gpu in machines.GPUS if gpu.name == "T4")
    monkeypatch.setattr(machines, "gpu_here", lambda: t4)
    monkeypatch.delenv("COLAB_RELEASE_TAG")
    Lesson("02_x", "X", "smoke", 0, tmp_path / "run")
    said = capsys.readouterr().out
    assert re.search(r"expected on this T4: \d+ min of training in 0\.\d of 16 GB \(computed\)", said)
    assert "mount a Drive" not in said
    assert machines.expectation(LIBRISPEECH, PROFILES["colab"], "01_x") == ""


def test_without_a_gpu_the_first_cell_says_what_the_real_world_would_take(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path / "cache"))
    Lesson("02_x", "X", "colab", 0, tmp_path / "run", "librispeech")
    said = capsys.readouterr().out
    assert re.search(r"would take: T4 \d+ min, L4 \d+ min, .*, in 1\.8 GB of GPU memory \(computed\)", said)
    assert re.search(
        r"download, for all notebooks: 10\.\d GB, .* 2\d\.\d GB of disk; \d+ GB are free in ", said
    )
    Lesson("02_x", "X", "smoke", 0, tmp_path / "run", "toy")
    assert not re.search("would take|download, for", capsys.readouterr().out)


def test_the_paper_s_sizes_are_not_for_the_toy_world(tmp_path):
    with pytest.raises(ConfigError, match="choose world librispeech, or a world file"):
        Lesson("02_x", "X", "paper", 0, tmp_path / "run", world="toy")
    assert not (tmp_path / "run").exists()


def test_models_made_before_belong_to_the_world_that_their_folder_names(tmp_path, monkeypatch):
    lesson = Lesson("02_x", "X", "smoke", 0, tmp_path / "run", world="toy")
    assert lesson.ships
    monkeypatch.setattr(teachers, "ASSETS", tmp_path)
    (tmp_path / "world.txt").write_text("librispeech\n")
    assert not lesson.ships
    lesson.world = replace(lesson.world, name="librispeech")
    assert lesson.ships
