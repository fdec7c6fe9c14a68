"""Models made ready for inference compute the same function; so do the fast convolution and attention inside."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdkit.common.errors import ConfigError
from kdkit.model import encoder, inference
from kdkit.model.encoder import PositionalConv
from kdkit.model.fast import attention
from kdkit.model.fast.attention import attend
from kdkit.model.fast.fftconv import fft_conv1d, kernel_spectrum, product_conv1d, product_matrices
from kdkit.model.inference import PackedLinear, optimised
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.recognition.ctc import CTCModel
from kdkit.speech.frames import frame_mask

SMALL = ModelConfig(
    layers=3, dim=32, ffn=64, heads=4, conv_channels=(8,) * 7, pos_kernel=16, pos_groups=4, dropout=0.1
)
DEEP = {"front_end": "fbank", "fbank_channels": 12, "normalisation": "utterance", "fbank_floor": 50.0}
SIZES = [9000, 400, 5123]


def model(front_end: str) -> SpeechModel:
    torch.manual_seed(0)
    settings = DEEP if front_end == "deep fbank" else {"front_end": front_end}
    return SpeechModel(replace(SMALL, **settings)).eval()


def batch():
    torch.manual_seed(1)
    waves = [torch.randn(size) * 0.1 for size in SIZES]
    return nn.utils.rnn.pad_sequence(waves, batch_first=True), torch.tensor(SIZES)


@given(
    st.integers(1, 3),
    st.integers(1, 90),
    st.sampled_from([(4, 1), (8, 4), (7, 2), (16, 4)]),
    st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_convolution_by_fourier_transform_is_convolution(rows, total, shape, seed):
    kernel, groups = shape
    torch.manual_seed(seed)
    conv = nn.Conv1d(8, 8, kernel, padding=kernel // 2, groups=groups)
    x = torch.randn(rows, total, 8, requires_grad=True)
    ours = fft_conv1d(x, kernel_spectrum(conv.weight, groups)) + conv.bias
    expected = conv(x.transpose(1, 2)).transpose(1, 2)[:, :total]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    matrices = product_matrices(kernel_spectrum(conv.weight, groups), torch.float32)
    torch.testing.assert_close(product_conv1d(x, matrices) + conv.bias, ours, atol=1e-5, rtol=1e-4)
    inputs = (x, conv.weight)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
    ):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_folding_keeps_the_positions_and_leaves_copies_alone():
    torch.manual_seed(0)
    positions, x = PositionalConv(16, 8, 4), torch.randn(2, 30, 16)
    folded = copy.deepcopy(positions)
    folded.fold()
    torch.testing.assert_close(folded(x), positions(x), atol=1e-6, rtol=1e-5)
    names = [name for name, _ in positions.named_parameters()]
    assert "conv.parametrizations.weight.original0" in names  # the original still trains


def test_positions_in_bf16_are_nearly_as_exact_as_bf16_is(monkeypatch):
    monkeypatch.setattr(encoder, "has_amx", lambda: True)
    torch.manual_seed(0)
    positions, x = PositionalConv(96, 128, 16), torch.randn(3, 150, 96)
    fast, rounded = copy.deepcopy(positions), copy.deepcopy(positions)
    fast.fold(bf16=True)
    rounded.fold()
    rounded.conv.bfloat16().float()
    assert fast.spectrum is None, "products take its place"
    with torch.inference_mode():
        expected, ours = positions(x), fast(x)
        y = rounded.conv(x.bfloat16().float().transpose(1, 2))[..., :-1].transpose(1, 2)
        best = F.gelu(y.bfloat16().float())
        assert fast(x.bfloat16()).dtype == torch.bfloat16
    assert 0 < (ours - expected).norm() < 2.5 * (best - expected).norm() < 0.01 * expected.norm()


@pytest.mark.skipif(
    not getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", bool)(),
    reason="oneDNN has no bf16 on this CPU",
)
@pytest.mark.parametrize("rows", [1, 149, 512])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_weights_give_the_same_result(rows, bias):
    torch.manual_seed(0)
    linear = nn.Linear(48, 96, bias=bias).bfloat16().requires_grad_(False)
    packed, x = PackedLinear(linear), torch.randn(2, rows, 48).bfloat16()
    for layer in (packed, copy.deepcopy(packed)):
        for values in (x, x.transpose(0, 1)):
            torch.testing.assert_close(layer(values), linear(values), atol=0.01, rtol=0.016)
    assert packed.state_dict().keys() == linear.state_dict().keys()


@pytest.mark.parametrize("buckets", [0, 16])
@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_padding_to_a_round_number_of_frames_changes_nothing(buckets, pre_norm, masked):
    torch.manual_seed(0)
    plain = encoder.Encoder(
        16, 2, 32, 4, pre_norm=pre_norm, pos_kernel=8, pos_groups=4, relative_buckets=buckets
    )
    x, frames = torch.randn(3, 37, 16), torch.tensor([37, 5, 20])
    mask = frame_mask(frames, 37) if masked else None
    real = frame_mask(frames, 37) if masked else torch.ones(3, 37, dtype=torch.bool)
    rounded = copy.deepcopy(plain.eval())
    rounded.multiple = 32
    with torch.inference_mode():
        expected, ours = plain(x, mask), rounded(x, mask)
    for a, b in zip(ours, expected, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a[real], b[real], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scores", [1, 50, 2000, 2**20])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("amx", [True, False])
def test_attention_in_chunks_is_attention(monkeypatch, scores, masked, amx):
    monkeypatch.setattr(attention, "SCORES", scores)
    monkeypatch.setattr(attention, "has_amx", lambda: amx)
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 4, 70, 8).bfloat16() for _ in range(3))
    mask = (torch.arange(70) < torch.tensor([70, 1, 33])[:, None])[:, None, None] if masked else None
    expected = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    ours = attend(q, k, v, mask, 0.0)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("mask", ["none", "padding", "positions"])
@pytest.mark.parametrize("amx", [True, False])
def test_attention_in_bf16_has_the_gradients_of_float32(monkeypatch, autocast, mask, amx):
    monkeypatch.setattr(attention, "has_amx", lambda: amx)
    torch.manual_seed(0)
    values = [torch.randn(2, 2, 30, 8).bfloat16() for _ in range(3)]
    real = (torch.arange(30) < torch.tensor([30, 17])[:, None])[:, None, None]
    masks = {"none": None, "padding": real, "positions": torch.randn(2, 2, 30, 30).bfloat16()}
    plain = [v.float().requires_grad_() for v in values]
    added = masks[mask].float() if mask == "positions" else masks[mask]
    expected = F.scaled_dot_product_attention(*plain, attn_mask=added)
    expected.square().sum().backward()
    low = [v.clone().requires_grad_() for v in values]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = attend(*low, masks[mask], 0.0)
    assert ours.dtype == torch.bfloat16
    ours.float().square().sum().backward()
    torch.testing.assert_close(ours.float(), expected, atol=0.03, rtol=0.03)
    for a, b in zip(low, plain):
        assert (a.grad.float() - b.grad).norm() < 0.03 * b.grad.norm()


@pytest.mark.parametrize("front_end", ["waveform", "fbank", "deep fbank"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.03), ("int8", 0.06)])
@pytest.mark.parametrize("amx", [True, False])
def test_the_function_stays(monkeypatch, front_end, precision, tolerance, amx):
    if amx and not attention.has_amx():
        pytest.skip("a CPU without AMX")
    monkeypatch.setattr(attention, "has_amx", lambda: amx)
    monkeypatch.setattr(inference, "has_amx", lambda: amx)
    plain, (waves, lengths) = model(front_end), batch()
    before = {name: t.clone() for name, t in plain.state_dict().items()}
    fast = optimised(plain, precision)
    with torch.inference_mode():
        expected, ours = plain(waves, lengths), fast(waves, lengths)
    for a, b in zip(ours.hidden, expected.hidden):
        error = (a.float() - b)[expected.mask].norm() / b[expected.mask].norm()
        assert error < tolerance
    assert torch.equal(ours.frames, expected.frames)
    assert all(torch.equal(t, before[name]) for name, t in plain.state_dict().items())  # a copy was made
    found = {t.dtype for name, t in fast.state_dict().items() if name.endswith("qkv.weight")}
    assert (
        found == {"fp32": {torch.float32}, "bf16": {torch.bfloat16}, "int8": set()}[precision]
    )  # int8: packed


@pytest.mark.parametrize("front_end", ["waveform", "fbank", "deep fbank"])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_padding_changes_nothing_in_low_precision_either(front_end, precision):
    fast, (waves, lengths) = optimised(model(front_end), precision), batch()
    with torch.inference_mode():
        together = fast(waves, lengths)
        for row, size in enumerate(SIZES):
            alone = fast(waves[row : row + 1, :size], lengths[row : row + 1], padded=False).last[0].float()
            error = (together.last[row, : len(alone)].float() - alone).norm() / alone.norm()
            assert error < 0.03


def test_a_whole_recogniser_and_what_cannot_be():
    torch.manual_seed(0)
    recogniser, (waves, lengths) = CTCModel(model("fbank")).eval(), batch()
    with torch.inference_mode():
        expected, frames = recogniser(waves, lengths)
        real = frame_mask(frames, expected.shape[1])
        for precision, tolerance in (("fp32", 1e-4), ("bf16", 0.05), ("int8", 0.1)):
            logits, _ = optimised(recogniser, precision)(waves, lengths)
            assert (logits.float() - expected)[real].abs().max() < tolerance
    with pytest.raises(ConfigError, match="choose one of fp32, bf16, int8"):
        optimised(recogniser, "fp8")
