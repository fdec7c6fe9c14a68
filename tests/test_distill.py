"""Regression loss by hand, padding, the teacher untouched, students that start from the teacher, and that it learns."""

import math

import pytest
import torch

from kdkit.batches import collate
from kdkit.checkpoints import half
from kdkit.codebook import Codebook
from kdkit.distill import DistillConfig, DistillTask, default_pairs, layer_wise, prediction_heads
from kdkit.errors import CheckpointError, ConfigError
from kdkit.losses import regression_loss
from kdkit.models import ModelConfig, SpeechModel, preset
from kdkit.students import new_student
from kdkit.teachers import Teacher, load_model, load_teacher, save_model

TEACHER = ModelConfig(
    layers=3, dim=32, ffn=64, heads=2, conv_channels=(4,) * 7, pos_kernel=8, pos_groups=4, dropout=0.1
)


def small_teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher(SpeechModel(TEACHER).requires_grad_(False).eval(), None, "test", {})


def padded_batch(*sizes: int):
    torch.manual_seed(1)
    waves = [torch.randn(size) * 0.1 for size in sizes]
    return collate(waves, [None] * len(sizes)), waves


def test_regression_loss_by_hand():
    p, h = torch.tensor([[[1.0, 0.0], [9.0, 9.0]]]), torch.tensor([[[0.0, 2.0], [-5.0, 1.0]]])
    mask = torch.tensor([[True, False]])  # the second frame is padding
    l1, l2, cosine = (1 + 2) / 2, (1 + 4) / 2, math.log(1 + math.exp(-0.0))  # orthogonal: -log sigmoid(0)
    assert regression_loss(p, h, mask, 0.0).item() == pytest.approx(l1)
    assert regression_loss(p, h, mask, 2.0).item() == pytest.approx(l1 + 2 * cosine)
    assert regression_loss(p, h, mask, 0.0, "l2").item() == pytest.approx(l2)


def test_regression_loss_gradient():
    p = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    h = torch.randn(2, 3, 4, dtype=torch.float64)
    loss = regression_loss(p, h, mask)
    loss.backward()
    assert (p.grad[0, 2] == 0).all() and (p.grad[0, 1] != 0).any()


@pytest.mark.parametrize("front_end", ["waveform", "fbank"])
def test_a_padded_batch_equals_its_utterances(front_end):
    teacher = small_teacher()
    config = ModelConfig(**{**TEACHER.to_dict(), "dim": 16, "front_end": front_end, "dropout": 0.0})
    task = DistillTask(SpeechModel(config), teacher, DistillConfig(layer_wise(config, TEACHER))).eval()
    batch, waves = padded_batch(8000, 3000, 5000)
    together, _ = task(batch)
    alone, frames = 0.0, 0
    for wave in waves:
        one = collate([wave], [None])
        n = (len(wave) - 400) // 320 + 1
        alone, frames = alone + task(one)[0] * n, frames + n
    torch.testing.assert_close(together, alone / frames, atol=1e-5, rtol=1e-5)


def test_the_teacher_stays_as_it_was_and_the_student_learns():
    teacher = small_teacher()
    before = {n: t.clone() for n, t in teacher.model.state_dict().items()}
    student = SpeechModel(ModelConfig(**{**TEACHER.to_dict(), "layers": 2, "dropout": 0.0}))
    task = DistillTask(student, teacher, DistillConfig(prediction_heads(student.config, (1, 3))))
    task.train()
    assert not teacher.model.training  # no dropout in the targets
    batch, _ = padded_batch(8000, 6000)
    optimiser = torch.optim.Adam([p for p in task.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(60):
        loss, _ = task(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert all(torch.equal(before[n], t) for n, t in teacher.model.state_dict().items())


def test_pairs():
    teacher = preset("hubert-base")
    assert layer_wise(preset("dt-fbank"), teacher) == tuple((i, i) for i in range(1, 13))
    assert default_pairs(preset("sw-fbank"), teacher) == ((2, 4), (2, 8), (2, 12))
    with pytest.raises(ConfigError, match="12"):
        layer_wise(preset("sw-fbank"), teacher)
    with pytest.raises(ConfigError, match="teacher layer 4"):
        DistillTask(SpeechModel(TEACHER), small_teacher(), DistillConfig(((3, 4),)))


def test_students_start_from_the_teachers_parts():
    teacher = SpeechModel(preset("tiny-teacher"))
    wide = new_student("tiny-sw-waveform", teacher)
    assert (
        "waveform CNN" in wide.from_teacher
        and "layer 2" in wide.from_teacher
        and "projection" in wide.from_teacher
    )
    for own, theirs in zip(wide.encoder.layers, teacher.encoder.layers):
        assert torch.equal(own.ffn_in.weight, theirs.ffn_in.weight)
    thin = new_student("tiny-dt-waveform", teacher)
    assert thin.from_teacher == ["waveform CNN", "CNN's LayerNorm"]
    assert new_student("tiny-dt-fbank", teacher).from_teacher == []
    assert new_student("tiny-dt-waveform").from_teacher == []
    again = new_student("tiny-dt-fbank", seed=0)
    assert torch.equal(
        again.encoder.layers[0].ffn_in.weight, new_student("tiny-dt-fbank").encoder.layers[0].ffn_in.weight
    )


def test_models_come_back_from_a_file(tmp_path):
    model, book = SpeechModel(TEACHER), Codebook(32, 7, 5, tau=0.2)
    save_model(tmp_path / "m.safetensors", model, {"why": "test"}, book, pack=half)
    teacher = load_teacher(tmp_path / "m.safetensors")
    assert teacher.config == TEACHER and teacher.codebook.tau == 0.2 and teacher.meta["why"] == "test"
    assert not any(p.requires_grad for p in teacher.model.parameters())
    waves, lengths = torch.randn(1, 4000) * 0.1, torch.tensor([4000])
    with torch.no_grad():
        error = (teacher.hidden(waves, lengths).last - model.eval()(waves, lengths).last).abs().max()
    assert 0 < error < 0.02  # float16 on disk
    save_model(tmp_path / "x.safetensors", SpeechModel(TEACHER), {})
    damaged = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        load_model(tmp_path / "x.safetensors")
