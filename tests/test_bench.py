"""The benchmark of distillation: the plain way computes the same losses, and every variant runs in every round."""

import numpy as np
import pytest
import soundfile
import torch

from kdkit.batches import collate
from kdkit.bench import distill as bench
from kdkit.codebook import Codebook, cosine_logits
from kdkit.distill import DistillConfig, DistillTask
from kdkit.manifest import Utterance
from kdkit.models import ModelConfig, SpeechModel
from kdkit.teachers import Teacher

CONFIG = ModelConfig(
    layers=2, dim=16, ffn=32, heads=2, conv_channels=(4,) * 7, pos_kernel=8, pos_groups=4, dropout=0.0
)


def pair():
    torch.manual_seed(0)
    book = Codebook(16, 6, 8).requires_grad_(False).eval()
    teacher = Teacher(SpeechModel(CONFIG).requires_grad_(False).eval(), book, "test", {})
    return teacher, SpeechModel(ModelConfig(**{**CONFIG.to_dict(), "front_end": "fbank"}))


@pytest.fixture
def speech(tmp_path):
    rng = np.random.default_rng(0)
    utterances = []
    for i in range(6):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(8000 + 800 * i), 16_000)
        utterances.append(Utterance(f"u{i}", path, 0.5 + 0.05 * i))
    return utterances


def test_the_plain_way_is_the_same_function_without_padding():
    teacher, student = pair()
    task = DistillTask(student, teacher, DistillConfig(((1, 1), (2, 2)), discriminative_weight=1.0)).eval()
    batch = collate([torch.randn(8000) * 0.1] * 2, [None] * 2)
    torch.testing.assert_close(bench.PlainTask(task)(batch)[0], task(batch)[0], rtol=2e-3, atol=2e-3)


def test_the_expanded_cosine_is_the_normalised_matmul():
    frames, embeddings = torch.randn(2, 5, 8), torch.randn(6, 8)
    torch.testing.assert_close(
        bench.expanded_cosine(frames, embeddings),
        cosine_logits(frames, embeddings, 1.0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_every_variant_is_measured_in_every_round(speech, monkeypatch):
    monkeypatch.setattr(bench, "new_pair", lambda size: pair())
    rows = bench.bench_distill(speech, "tiny", seconds_per_batch=1.5, rounds=3, steps=1)
    assert [row.name for row in rows] == ["plain", "kdkit, targets live", "kdkit, targets cached"]
    assert rows[0].ratio == (1.0, 1.0, 1.0)
    for row in rows:
        assert 0 < row.speed[0] <= row.speed[1] <= row.speed[2] and row.name in str(row)
        assert row.gigabytes is None or row.gigabytes > 0.01
        assert row.utilisation > 0
    assert (
        rows[1].utilisation / rows[2].utilisation > rows[1].speed[1] / rows[2].speed[1]
    )  # live also runs the teacher
