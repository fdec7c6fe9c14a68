"""Worlds: what the lessons are about, world files of one's own, and what is wrong before anything is trained."""

import builtins
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdkit.common.errors import CheckpointError, ConfigError, DownloadError
from kdkit.lessons import machines, speech_sources, worlds
from kdkit.lessons.machines import check_machine
from kdkit.lessons.profiles import PROFILES
from kdkit.lessons.world_files import find_world
from kdkit.lessons.worlds import LIBRISPEECH, TOY, check_voices
from kdkit.speech.manifest import Utterance, write_manifest
from kdkit.teachers import load_teacher

CPU, GPU = torch.device("cpu"), torch.device("cuda")
MINUTES = {"unlabelled": 300, "train": 30, "dev": 5, "test-clean": 10, "test-other": 10}  # of profile colab


def manifest(path, voices, each=3, seconds=10.0):
    write_manifest(
        path,
        [
            Utterance(f"{path.stem}-{voice}-{i}", path.parent / f"{voice}-{i}.wav", seconds, "a text", voice)
            for voice in voices
            for i in range(each)
        ],
    )


@pytest.fixture
def folder(tmp_path):
    manifest(tmp_path / "train.jsonl", ["ann", "bob"])
    manifest(tmp_path / "ten.jsonl", ["ann", "bob"], each=30)
    manifest(tmp_path / "dev.jsonl", ["cy"], each=10)
    manifest(tmp_path / "test.jsonl", ["dee"], each=10)
    manifest(tmp_path / "short.jsonl", ["eve"], each=9)
    manifest(tmp_path / "one.jsonl", ["fay"], each=1)
    return tmp_path


GOOD = {
    "teacher": "hubert_base_ls960",
    "unlabelled": "train.jsonl",
    "labelled": ["train.jsonl", "ten.jsonl"],
    "dev": "dev.jsonl",
    "tests": {"test": "test.jsonl"},
}


def written(folder, **changed):
    path = folder / "world.json"
    entries = {name: value for name, value in (GOOD | changed).items() if value is not None}
    path.write_text(json.dumps(entries))
    return str(path)


def test_auto_is_toy_without_a_gpu_and_librispeech_with_one():
    assert find_world("auto", CPU) is find_world("toy") is TOY
    assert find_world("auto", GPU) is find_world("librispeech") is LIBRISPEECH
    with pytest.raises(
        ConfigError, match=r"no world 'mars': choose auto, toy, librispeech, or the path of a \.toml"
    ):
        find_world("mars")


def test_students_of_a_world_are_presets():
    assert TOY.presets == ("tiny-dt-waveform", "tiny-sw-waveform", "tiny-dt-fbank", "tiny-sw-fbank")
    assert LIBRISPEECH.student("sw", "fbank") == "sw-fbank"
    with pytest.raises(ConfigError, match="no student 'dt-mel'"):
        LIBRISPEECH.student("dt", "mel")


def test_families_are_the_paper_s_and_a_world_s_own():
    assert list(LIBRISPEECH.families) == ["hubert-base"]
    assert list(TOY.families) == ["hubert-base", "tiny-teacher"]
    assert TOY.families["tiny-teacher"] == TOY.presets


def test_toy_speech_is_the_synthetic_corpus_of_that_length():
    speech = {split: TOY.speech(split, 0.2) for split in ("train", "dev", "test-clean")}
    for split, some in speech.items():
        assert some[0].id.startswith(split) and 12 <= sum(u.duration for u in some) < 20
    assert TOY.labels(0.1) == speech["train"][: len(TOY.labels(0.1))]
    assert check_voices(speech) == []
    with pytest.raises(
        ConfigError, match="no speech 'test'; there is unlabelled, dev, test-clean, test-other"
    ):
        TOY.speech("test", 1)


def test_a_world_of_ones_own(folder):
    world = find_world(written(folder, name="mine", students="tiny", clusters=50))
    assert (world.name, world.teacher, world.clusters, world.utterance_seconds) == (
        "mine",
        GOOD["teacher"],
        50,
        10.0,
    )
    assert world.student("dt", "fbank") == "tiny-dt-fbank" and world.lm_files() is None
    assert [u.id for u in world.speech("test", 0.3)] == ["test-dee-0", "test-dee-1"]
    train, test = world.probe_speech((1, 1))
    assert {u.speaker for u in train} == {"cy"} and {u.speaker for u in test} == {"dee"}


def test_the_smallest_budget_that_has_the_minutes_is_taken(folder):
    world = find_world(written(folder))
    assert {u.id.split("-")[0] for u in world.labels(1)} == {"train"}
    assert {u.id.split("-")[0] for u in world.labels(5)} == {"ten"}
    assert len(world.labels(100)) == 60  # all there is


def test_toml_says_the_same(folder, monkeypatch):
    pytest.importorskip("tomllib", reason="Python 3.11")
    path = folder / "world.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in GOOD.items() if name != "tests"]
    path.write_text("\n".join([*lines, '[tests]\ntest = "test.jsonl"']))
    assert replace(find_world(str(path)), purpose="") == replace(find_world(written(folder)), purpose="")
    real = builtins.__import__
    monkeypatch.setattr(
        builtins,
        "__import__",
        lambda name, *a, **b: (
            exec("raise ImportError") if name in ("tomllib", "tomli") else real(name, *a, **b)
        ),
    )
    with pytest.raises(ConfigError, match=r"pip install tomli, or write the world as \.json"):
        find_world(str(path))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"dev": None}, "entry 'dev' is missing; every world needs teacher, unlabelled"),
        ({"devs": "dev.jsonl"}, "unknown entry 'devs'; known are teacher"),
        ({"dev": "gone.jsonl"}, r"dev names .*gone\.jsonl, which is not there; make it with kdkit prepare"),
        ({"dev": 3}, "entry 'dev' is 3: a text is needed"),
        ({"dev": "librispeech:dev-cleen"}, "no speech 'librispeech:dev-cleen': librispeech has dev-clean"),
        ({"dev": "one.jsonl"}, "dev has 1 utterance: .*give it 10 or more"),
        ({"tests": {"x": "short.jsonl"}}, "test set x has 9 utterances: .*give it 10 or more"),
        ({"tests": {}}, "entry 'tests' names no test set"),
        ({"tests": "test.jsonl"}, "entry 'tests' is 'test.jsonl': names and values are needed"),
        (
            {"tests": {"x": "ten.jsonl"}},
            r"2 speakers of test set x also in unlabelled: ann, bob\. A test on voices",
        ),
        ({"teacher": "hubert"}, "teacher 'hubert' is neither a name that load_teacher knows nor a file"),
        (
            {"teacher": "models/a.pt"},
            "teacher 'models/a.pt' is neither a name that load_teacher knows nor a file",
        ),
        ({"students": "huge"}, "entry 'students' is 'huge': choose base or tiny"),
        ({"probing": ["dev.jsonl"]}, "entry 'probing' is .*: two manifests"),
        ({"finished": {"sw": "tiny"}}, r"finished\.sw: no such student; known are hubert-base"),
        ({"language_model": "lm.arpa"}, r"language_model .*lm\.arpa is not there; make one with kdkit lm"),
        ({"clusters": 1}, "entry 'clusters' is 1: a number from 2 to 10,000"),
    ],
)
def test_what_is_wrong_in_a_world_file_is_said_with_its_entry(folder, changed, complaint):
    with pytest.raises(ConfigError, match=rf"world\.json: .*{complaint}"):
        find_world(written(folder, **changed))


def test_a_file_that_is_no_world_file(tmp_path):
    with pytest.raises(ConfigError, match="no such world file"):
        find_world(str(tmp_path / "world.json"))
    (tmp_path / "world.json").write_text("[1")
    with pytest.raises(ConfigError, match="not JSON"):
        find_world(str(tmp_path / "world.json"))
    (tmp_path / "world.json").write_text("[1]")
    with pytest.raises(ConfigError, match="entries with names are needed"):
        find_world(str(tmp_path / "world.json"))


def test_a_teacher_beside_the_world_file_and_one_of_the_hub(folder):
    (folder / "mine.safetensors").write_bytes(b"")
    assert find_world(written(folder, teacher="mine.safetensors")).teacher == str(folder / "mine.safetensors")
    for name in ("facebook/hubert-large-ll60k", "owner/model-1.5", "owner/model@v1.0"):
        assert find_world(written(folder, teacher=name)).teacher == name


def test_a_teacher_without_codebook_is_announced_before_anything_is_trained(capsys):
    assert replace(TOY, teacher="tiny-sw-waveform", clusters=20).load_teacher().codebook is None
    assert "has no codebook: 20 k-means centroids of its last layer serve" in capsys.readouterr().out
    assert TOY.load_teacher().codebook is not None
    assert capsys.readouterr().out == ""


def test_a_teacher_that_cannot_be_downloaded_has_a_stand_in(monkeypatch, capsys):
    def unreachable(source):
        if source == "hubert_base_ls960":
            raise DownloadError("no network")
        return load_teacher("tiny-sw-waveform")

    monkeypatch.setattr(worlds, "load_teacher", unreachable)
    LIBRISPEECH.load_teacher()
    assert "HUBERT_BASE stands in for it: no network" in capsys.readouterr().out
    with pytest.raises(DownloadError, match="no network"):
        replace(LIBRISPEECH, stand_in="").load_teacher()


def test_a_finished_student_has_the_structure_of_its_preset():
    finished = {"tiny-sw-waveform": "tiny-sw-waveform", "tiny-dt-waveform": "tiny-sw-waveform"}
    world = replace(TOY, finished=finished)
    assert world.finished_student("tiny-sw-waveform").config.layers == 2
    assert world.finished_student("tiny-sw-fbank") is None
    with pytest.raises(
        CheckpointError, match="stands in for tiny-dt-waveform in world toy, but its layers is 2"
    ):
        world.finished_student("tiny-dt-waveform")


def test_too_little_disk_is_said_before_a_download(monkeypatch, tmp_path):
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path / "cache"))
    check_machine(TOY, MINUTES, 64, CPU)
    usage = shutil._ntuple_diskusage(100e9, 95e9, 5e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ConfigError, match=r"downloads need 2\d GB in .*cache, 5 GB are free\. Make room"):
        check_machine(LIBRISPEECH, MINUTES, 64, CPU)
    before = LIBRISPEECH.to_download(MINUTES)
    path = speech_sources.manifest_of("librispeech", "train-clean-100")
    path.parent.mkdir(parents=True)
    path.touch()
    assert LIBRISPEECH.to_download(MINUTES) == before - 6_300
    assert LIBRISPEECH.to_download(MINUTES | {"unlabelled": 960 * 60}) == before - 6_300 + 53_000
    assert TOY.to_download(MINUTES) == 0


def test_only_as_much_is_fetched_as_is_asked_for():
    assert speech_sources.enough(LIBRISPEECH.unlabelled, 300) == ["librispeech:train-clean-100"]
    assert speech_sources.enough(LIBRISPEECH.unlabelled, 960 * 60) == list(LIBRISPEECH.unlabelled)
    assert speech_sources.enough(LIBRISPEECH.labelled, 30, one=True) == [
        "librilight:10min-0",
        "librilight:1h",
    ]
    assert speech_sources.enough(("a.jsonl", "b.jsonl"), 1) == [
        "a.jsonl",
        "b.jsonl",
    ]  # nobody knows their length
    budgets = ["librilight:10min-0", "librilight:1h"]
    assert speech_sources.megabytes(budgets) == speech_sources.megabytes(budgets[:1]), (
        "they come in one archive"
    )


def test_too_little_gpu_memory_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (2e9, 16e9))
    check_machine(TOY, MINUTES, 64, GPU)
    with pytest.raises(ConfigError, match=r"150 s need about 3\.6 GB of GPU memory, 2\.0 of 16\.0 GB are"):
        check_machine(LIBRISPEECH, {}, 150, GPU)


def test_expected_speed_and_memory_go_through_what_was_measured():
    h200 = next(gpu for gpu in machines.GPUS if gpu.name == "H200")
    measured = replace(LIBRISPEECH, utterance_seconds=15.0)
    assert machines.speed(h200, measured, 141.5) == pytest.approx(h200.measured, rel=0.02)
    assert machines.speed(h200, measured, 587.6) == pytest.approx(7_143, rel=0.02)
    speeds = [machines.speed(gpu, measured, 141.5) for gpu in machines.GPUS]
    assert sorted(speeds)[2:] == speeds[2:] and speeds[0] == pytest.approx(h200.measured / 15.2, rel=0.03)
    assert machines.training_gigabytes(600) == pytest.approx(12.73, rel=0.02)
    assert machines.training_gigabytes(150) == pytest.approx(3.58, rel=0.02)


def test_readme_shows_what_is_computed(monkeypatch, tmp_path):
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path))
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    shown = readme.partition("<!-- machines -->\n")[2].partition("\n<!-- /machines -->")[0]
    assert shown == machines.readme_table(LIBRISPEECH, PROFILES["colab"])
    download = LIBRISPEECH.to_download(MINUTES) / 1000
    assert f"{download:.1f} GB to download, {2 * download:.0f} GB of disk" in readme
