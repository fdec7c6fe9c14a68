"""Models that a world does not have are trained when a lesson asks, once, and announced."""

from dataclasses import replace

import pytest
import torch

from kdkit.lessons import live, machines
from kdkit.lessons.profiles import SMOKE
from kdkit.lessons.worlds import TOY
from kdkit.teachers import fingerprint, load_model, load_teacher

SIZE = replace(
    SMOKE, unlabelled_minutes=0.3, dev_minutes=0.1, distill_steps=2, finetune_steps=2, finetune_minutes=0.2
)


@pytest.fixture(scope="module")
def teacher():
    return load_teacher("tiny")


def test_a_student_that_is_not_there_is_distilled_once_and_said(teacher, tmp_path, capsys, monkeypatch):
    path = live.distil(TOY, "tiny-dt-fbank-both", teacher, SIZE, tmp_path)
    assert "tiny-dt-fbank-both is not there: distilled now, 2 steps\n" in capsys.readouterr().out
    student, _, meta = load_model(path)
    assert meta["steps"] == 2 and student.config.front_end == "fbank"
    assert live.distil(TOY, "tiny-dt-fbank-both", teacher, SIZE, tmp_path) == path
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert live._time(TOY, "tiny-dt-fbank", SIZE) == ", about 1 minutes on this T4"


@pytest.mark.parametrize(
    ("name", "known"), [("NVIDIA L4", "L4"), ("NVIDIA A100-SXM4-40GB", "A100"), ("NVIDIA L40S", None)]
)
def test_the_gpu_is_known_by_its_whole_name(monkeypatch, name, known):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert getattr(machines.gpu_here(), "name", None) == known


def test_a_teacher_without_codebook_gets_centroids(tmp_path):
    bare = load_teacher("tiny-sw-waveform")
    world = replace(TOY, clusters=5)
    found = live.with_codebook(bare, world, SIZE, tmp_path)
    assert len(found.codebook.label_embeddings) == 5
    before = found.codebook.label_embeddings.clone()
    bare.codebook = None
    assert torch.equal(live.with_codebook(bare, world, SIZE, tmp_path).codebook.label_embeddings, before)


def test_recognisers_that_are_not_there_are_fine_tuned_once(tmp_path, capsys):
    student = load_teacher("tiny-sw-waveform").model.requires_grad_(True)
    found = live.recognisers(TOY, student, SIZE, tmp_path)
    assert set(found) == {"tiny_sw_waveform_distilled_0.2", "tiny_sw_waveform_scratch_0.2"}
    assert capsys.readouterr().out.count("is not there: fine-tuned now, 2 steps") == 2
    again = live.recognisers(TOY, student, SIZE, tmp_path)
    for name, (recogniser, meta) in found.items():
        assert fingerprint(again[name][0].model) == fingerprint(recogniser.model)
        assert meta["start"] in name and meta["minutes"] == 0.2
    assert "is not there" not in capsys.readouterr().out
