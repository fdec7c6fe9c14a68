"""Exported recognisers give PyTorch's logits in onnxruntime and in transformers."""

import json
import sys
from pathlib import Path

import pytest
import torch

from kdkit.bench.inference import distilhubert
from kdkit.commands.exporting import beside
from kdkit.common.errors import ConfigError
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.recognition.ctc import CTCModel
from kdkit.recognition.decode import greedy
from kdkit.recognition.export import onnx as to_onnx
from kdkit.recognition.export.huggingface import check_huggingface, export_huggingface
from kdkit.recognition.export.samples import noise, speech
from kdkit.recognition.loading import OnnxNetwork, ready_network
from kdkit.recognition.network import hear
from kdkit.speech.stream import Window
from kdkit.speech.text import VOCABULARY

SMALL = ModelConfig(
    layers=2, dim=32, ffn=48, heads=4, conv_channels=(8,) * 7, pos_kernel=16, pos_groups=4, dropout=0.0
)


def recogniser(**settings) -> CTCModel:
    torch.manual_seed(0)
    return CTCModel(SpeechModel(ModelConfig(**{**SMALL.to_dict(), **settings}))).eval()


needs_new_torch = pytest.mark.skipif(
    not to_onnx.EXPORTS, reason="this torch exports one length of input only"
)


@needs_new_torch
@pytest.mark.parametrize(
    "settings",
    [
        {"front_end": "fbank"},
        {},
        {"front_end": "fbank", "pre_norm": True, "normalisation": "utterance"},
        {"front_end": "fbank", "fbank_channels": 12, "bins": 40, "fbank_floor": 50.0},
    ],
)
def test_onnx_gives_the_logits_of_pytorch_at_every_length(tmp_path, settings):
    model, path = recogniser(**settings), tmp_path / "recogniser.onnx"
    model.window = 12.5
    assert to_onnx.export_onnx(model, path) == path
    differences = to_onnx.check_onnx(path, model)
    assert {f"{n} samples of noise" for n in to_onnx.LENGTHS} < differences.keys()
    assert {"utterance 1", "utterances in one batch"} < differences.keys() and max(
        differences.values()
    ) < 1e-3
    session = OnnxNetwork(path).session
    assert [node.name for node in session.get_inputs()] == ["waves", "lengths"]
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["vocabulary"]) == list(VOCABULARY)
    assert ModelConfig.from_dict(json.loads(known["config"])) == model.model.config
    assert OnnxNetwork(path).window == 12.5


def test_exports_of_different_models_have_different_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.v1.safetensors").touch()
    (tmp_path / "b.v1").mkdir()
    for model, place in (
        ("a.v1.safetensors", "a.v1.onnx"),  # not a.onnx, as that of a.v2 would be
        ("b.v1", tmp_path / "b.v1.onnx"),
        ("owner/model-1.5", "model-1.5.onnx"),
        (".", tmp_path.with_name(f"{tmp_path.name}.onnx")),
    ):
        assert beside(model, ".onnx") == Path(place)


@needs_new_torch
def test_int8_is_smaller_and_near(tmp_path):
    model = recogniser(front_end="fbank", dim=128, ffn=256)
    whole = to_onnx.export_onnx(model, tmp_path / "whole.onnx")
    small = to_onnx.quantise_onnx(whole, tmp_path / "int8.onnx")
    assert small.stat().st_size < 0.8 * whole.stat().st_size
    difference = max(to_onnx.check_onnx(small, model).values())
    assert 0 < difference < 0.3
    assert not OnnxNetwork(whole).alone
    hears_alike_in_company(OnnxNetwork(small))


def hears_alike_in_company(network) -> None:
    """What is heard of an utterance is the same bit for bit, whatever else is heard with it."""
    pieces = [Window(wave.numpy(), 0, None, True) for wave in speech(4)]
    pieces.append(Window(5 * noise([100_000])[0].numpy(), 0, None, True))  # loud and long
    together = hear(network, pieces)
    for piece, row in zip(pieces, together, strict=True):
        torch.testing.assert_close(hear(network, [piece])[0], row, rtol=0, atol=0)


def test_an_int8_recogniser_hears_a_file_alike_in_any_company():
    if torch.cuda.is_available():
        pytest.skip("int8 is for CPUs")
    hears_alike_in_company(ready_network("tiny_sw_fbank_distilled_60", "int8"))


def test_an_old_torch_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(to_onnx, "EXPORTS", False)
    with pytest.raises(
        ConfigError, match=r"torch .* one length of input only; export to ONNX needs a newer torch"
    ):
        to_onnx.export_onnx(recogniser(), tmp_path / "x.onnx")


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(to_onnx, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"ONNX needs onnx and onnxscript: pip install 'kdkit\[onnx\]'"):
        to_onnx.export_onnx(recogniser(), tmp_path / "x.onnx")
    with pytest.raises(ConfigError, match=r"ONNX needs onnx and onnxruntime: pip install"):
        to_onnx.quantise_onnx(tmp_path / "x.onnx", tmp_path / "y.onnx")


@pytest.mark.parametrize("settings", [{}, {"residual_scale": 2.2}, {"pre_norm": True}])
def test_transformers_loads_the_folder_with_equal_logits(tmp_path, settings):
    transformers = pytest.importorskip("transformers")
    model = recogniser(**settings)
    folder = export_huggingface(model, tmp_path / "hf")
    theirs, told = transformers.HubertForCTC.from_pretrained(folder, output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = transformers.AutoProcessor.from_pretrained(folder)
    for samples in (400, 9000, 30_001):
        wave = torch.randn(1, samples) * 0.1
        sound = processor(wave[0].numpy(), sampling_rate=16_000, return_tensors="pt").input_values
        torch.testing.assert_close(sound, wave)
        with torch.inference_mode():
            logits, frames = model(wave, torch.tensor([samples]))
            other = theirs.eval()(sound).logits
        torch.testing.assert_close(other, logits, atol=1e-4, rtol=1e-4)
        said = processor.batch_decode(other.argmax(-1))[0]
        assert " ".join(said.split()) == greedy(logits, frames)[0]


def test_the_check_of_a_folder_begins_with_the_waveform(tmp_path):
    """transformers normalises it before the model; kdkit's recogniser does that itself."""
    pytest.importorskip("transformers")
    large = {"conv_norm": "layer", "pre_norm": True, "normalise_input": True}
    model = recogniser(**large, normalise_epsilon=1e-7)
    model.head.weight.data.normal_(std=3.0)  # logits that are not small
    same = check_huggingface(export_huggingface(model, tmp_path / "same"), model)
    other = recogniser(**large)
    other.load_state_dict(model.state_dict())
    with pytest.warns(UserWarning, match="adds 1e-07 to the variance .* this recogniser 1e-05"):
        folder = export_huggingface(other, tmp_path / "other")
    assert same < 5e-4 and 3 * same < check_huggingface(folder, other)


def test_a_transformers_that_cannot_be_imported_checks_nothing(monkeypatch, tmp_path):
    """Installed or not: beside a torchaudio that refuses this torch, it raises an error of its own."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert check_huggingface(tmp_path, None) is None
    assert distilhubert() is None


def test_what_transformers_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="an Fbank recogniser goes to ONNX"):
        export_huggingface(recogniser(front_end="fbank"), tmp_path)
    with pytest.raises(ConfigError, match="residual scale"):
        export_huggingface(recogniser(pre_norm=True, residual_scale=2.0), tmp_path)
