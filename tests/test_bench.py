"""The benchmark of distillation: the plain way computes the same losses, and every variant runs in every round."""

import re

import numpy as np
import pytest
import soundfile
import torch

from kdkit.bench import distill as bench
from kdkit.bench.inference import PEER, TINY, Speed, bench_inference, ratio, table
from kdkit.commands.speed import input_shape
from kdkit.common.errors import ConfigError
from kdkit.distill import DistillConfig, DistillTask
from kdkit.model.codebook import Codebook, cosines
from kdkit.model.costs import count_parameters
from kdkit.model.speech_model import ModelConfig, SpeechModel, preset
from kdkit.speech.batches import collate
from kdkit.speech.manifest import Utterance
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
        cosines(frames, embeddings),
        rtol=1e-5,
        atol=1e-6,
    )


def test_every_variant_is_measured_in_every_round(speech, monkeypatch):
    monkeypatch.setattr(bench, "new_pair", lambda size: pair())
    rows, where = bench.bench_distill(speech, "tiny", seconds_per_batch=1.5, rounds=3, steps=1)
    shares = [int(share) for share in re.findall(r"(\d+) %", where[0])]
    assert len(shares) == len(bench.PARTS) and 97 <= sum(shares) <= 103
    assert [row.name for row in rows] == ["plain", "kdkit, targets live", "kdkit, targets cached"]
    assert rows[0].ratio == (1.0, 1.0, 1.0)
    for row in rows:
        assert 0 < row.speed[0] <= row.speed[1] <= row.speed[2] and row.name in str(row)
        assert row.gigabytes is None or row.gigabytes > 0.01
        assert row.utilisation > 0
    assert (
        rows[1].utilisation / rows[2].utilisation > rows[1].speed[1] / rows[2].speed[1]
    )  # live also runs the teacher


def test_inference_is_timed_for_every_model_precision_and_shape():
    names, precisions = TINY[:3], ("plain", "fp32", "int8")
    rows = bench_inference(names, precisions, ((1, 0.4), (2, 0.3)), rounds=2, peer=False)
    if torch.cuda.is_available():
        precisions = ("plain", "fp32")  # int8 is for CPUs
    assert [(r.name, r.precision, r.batch) for r in rows] == [
        (name, precision, batch) for batch in (1, 2) for name in names for precision in precisions
    ]
    for row in rows:
        assert len(row.whole) == len(row.front_end) == 2 and (row.whole > row.front_end).all()
        assert row.parameters == count_parameters(preset(row.name)) and row.macs > 0
    plain, int8 = rows[0], rows[2]
    if "int8" in precisions:
        assert int8.weights < 0.5 * plain.weights  # a byte for a weight of the encoder instead of four
    text = "\n".join(table(rows))
    assert text.count("RTF") == 2 and "best precision of each against tiny-teacher's" in text


def test_ratios_are_taken_round_by_round():
    def speed(name, precision, whole):
        return Speed(name, precision, 1, 2.0, 10, 1e9, 0.1 * np.array(whole), np.array(whole), 0.1, 0.2)

    rows = [
        speed("hubert-base", "fp32", [4.0, 8.0, 40.0]),  # the machine slowed down in the last round
        speed("dt-waveform", "fp32", [2.0, 4.0, 20.0]),
        speed("dt-fbank", "fp32", [1.0, 2.0, 10.0]),
        speed("dt-fbank", "int8", [0.5, 1.0, 5.0]),
        Speed(PEER, "plain", 1, 2.0, 10, None, None, np.array([1.0, 1.0, 1.0]), 0.1, None),
    ]
    assert ratio(rows[0], rows[2]) == (4.0, 4.0, 4.0)
    assert rows[1].rtf == (1.5, 2.0, 6.0)
    lines = table(rows)
    assert next(line for line in lines if "dt-fbank" in line and "fp32" in line).endswith(
        "4.00 x       2.00 x"
    )
    assert any("dt-fbank" in line and "8.00 x (8.00-8.00)" in line for line in lines)


def test_shapes_of_inputs():
    assert input_shape("8x12") == (8, 12.0) and input_shape("1x2.5") == (1, 2.5)
    for wrong in ("8", "x12", "0x3", "2x0", "axb", "1x-3", "1xnan"):
        with pytest.raises(ConfigError, match="write BATCHxSECONDS"):
            input_shape(wrong)
