"""Teachers from every source against the reference implementations, layer by layer (data_scripts/formats.py)."""

import subprocess
import sys

import pytest
import torch
import torchaudio
from formats import (
    DISTILHUBERT,
    KINDS,
    SIZES,
    SMALL,
    SMALL_TORCHAUDIO,
    differences,
    fairseq_tensors,
    shake,
    shrunk,
    torchaudio_model,
    torchaudio_states,
    transformers_model,
    transformers_states,
    waves,
    write_fairseq,
    write_folder,
    write_wavlm,
)
from transformers import HubertForCTC

import kdkit
from kdkit.model.codebook import Codebook
from kdkit.model.speech_model import ModelConfig, SpeechModel, parameter_count
from kdkit.model.waveform import normalise_waves
from kdkit.recognition.ctc import load_recogniser
from kdkit.recognition.export.huggingface import export_huggingface
from kdkit.students import new_student
from kdkit.teachers import ASSETS, Teacher, load_teacher, save_model
from kdkit.teachers.bundles import BUNDLES

TOLERANCE = 1e-4


def assert_same(teacher: Teacher, states, sizes=SIZES) -> None:
    """Every layer, of utterances alone and in a padded batch, is that of the reference's ``states``."""
    assert not any(p.requires_grad for p in teacher.model.parameters()) and not teacher.model.training
    assert max(differences(teacher, states, sizes)) < TOLERANCE


# --- parity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("form", ["safetensors", "bin", "safetensors shards", "bin shards"])
def test_a_hugging_face_folder(kind, large, form, tmp_path):
    model = transformers_model(kind, large, **SMALL)
    write_folder(tmp_path, model, form)
    files = {path.name for path in tmp_path.iterdir()}
    name = "pytorch_model.bin" if "bin" in form else "model.safetensors"
    assert (f"{name}.index.json" in files) == ("shards" in form) == (name not in files)
    teacher = load_teacher(tmp_path)
    assert teacher.meta["architecture"] == kind and teacher.codebook is None
    assert teacher.config.normalise_input == large and teacher.config.pre_norm == large
    assert_same(teacher, transformers_states(model, large))
    single = next(path for path in tmp_path.iterdir() if path.name.startswith(name.split(".")[0]))
    assert load_teacher(single).config == teacher.config, "a file of the folder stands for it"


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_batch_of_a_large_model_is_the_references_padded_batch(kind, tmp_path):
    """LayerNorm does not look at other frames, so here the reference can be given the whole batch."""
    model = transformers_model(kind, True, **SMALL)
    model.save_pretrained(tmp_path)
    batch, lengths = waves()
    ours = load_teacher(tmp_path).hidden(batch, lengths)
    mask = torch.arange(batch.shape[1]) < lengths[:, None]
    with torch.no_grad():
        normalised = normalise_waves(batch, lengths, 1e-7)
        theirs = model(normalised, attention_mask=mask.long(), output_hidden_states=True)
    for layer, (own, reference) in enumerate(zip(ours.hidden[:-1], theirs.hidden_states, strict=False)):
        assert (own - reference)[ours.mask].abs().max() < TOLERANCE, layer
    assert (ours.last - theirs.last_hidden_state)[ours.mask].abs().max() < TOLERANCE


def test_a_hugging_face_model_with_a_head_and_its_own_word_on_normalisation(tmp_path):
    torch.manual_seed(0)
    model = shake(HubertForCTC(KINDS["hubert"][0](**SMALL, vocab_size=7)))
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": true, "sampling_rate": 16000}')
    teacher = load_teacher(tmp_path)
    assert teacher.config.normalise_input
    assert_same(teacher, transformers_states(model.hubert, True))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("HUBERT_BASE", {}),
        ("HUBERT_LARGE", {"extractor_mode": "layer_norm", "encoder_layer_norm_first": True}),
        (
            "WAV2VEC2_LARGE_LV60K",
            {"extractor_mode": "layer_norm", "encoder_layer_norm_first": True, "extractor_conv_bias": True},
        ),
        ("WAV2VEC2_ASR_BASE_960H", {"aux_num_out": 29}),
        ("WAVLM_BASE", {"encoder_num_buckets": 320, "encoder_max_distance": 800}),
        (
            "WAVLM_LARGE",
            {
                "encoder_num_buckets": 320,
                "encoder_max_distance": 800,
                "extractor_mode": "layer_norm",
                "encoder_layer_norm_first": True,
            },
        ),
    ],
)
def test_a_torchaudio_bundle(name, changes, tmp_path, monkeypatch):
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path))
    bundle, parameters = getattr(torchaudio.pipelines, name), SMALL_TORCHAUDIO | changes
    monkeypatch.setitem(BUNDLES, name, shrunk(BUNDLES[name], parameters))
    model = torchaudio_model(name, parameters)
    path = tmp_path / "teachers" / bundle._path
    path.parent.mkdir()
    torch.save(model.state_dict(), path)
    teacher = load_teacher(name)  # it is in the cache: no network is needed
    assert teacher.config.normalise_input == bundle._normalize_waveform == ("LARGE" in name)
    assert_same(teacher, torchaudio_states(model, bundle._normalize_waveform))
    assert load_teacher(path).config == teacher.config, "the file alone, by its name"


@pytest.mark.parametrize("form", ["cfg", "omegaconf", "args", "s3prl", "legacy"])
@pytest.mark.parametrize("large", [False, True])
def test_a_fairseq_hubert_with_its_codebook(form, large, tmp_path):
    model = transformers_model("hubert", large, **SMALL)
    path = tmp_path / "hubert.pt"
    torch.manual_seed(3)
    write_fairseq(path, model, normalise=large, clusters=11, form=form)
    assert "fairseq" not in sys.modules and "omegaconf" not in sys.modules
    teacher = load_teacher(path)
    assert_same(teacher, transformers_states(model, large, "fairseq"))
    torch.manual_seed(3)
    tensors = fairseq_tensors(model, 11)
    codebook = teacher.codebook
    assert isinstance(codebook, Codebook) and codebook.tau == 0.07
    assert torch.equal(codebook.label_embeddings, tensors["label_embs_concat"][4:]), "specials left out"
    assert torch.equal(codebook.final_proj.weight, tensors["final_proj.weight"])
    assert torch.equal(codebook.final_proj.bias, tensors["final_proj.bias"])


def test_fairseq_wav2vec2_and_microsofts_wavlm(tmp_path):
    path = tmp_path / "model.pt"
    model = transformers_model("wav2vec2", **SMALL)
    write_fairseq(path, model, quantizer={"vars": 1})
    assert load_teacher(path).codebook is None
    assert_same(load_teacher(path), transformers_states(model, False))
    model = transformers_model("wavlm", True, **SMALL)
    write_wavlm(path, model, normalise=True)
    assert_same(load_teacher(path), transformers_states(model, True, "fairseq"))


def test_a_fine_tuned_fairseq_model(tmp_path):
    model = transformers_model("hubert", **SMALL)
    tensors = {f"w2v_encoder.w2v_model.{name}": t for name, t in fairseq_tensors(model, 11).items()}
    tensors |= {"w2v_encoder.proj.weight": torch.zeros(5, 48), "w2v_encoder.proj.bias": torch.zeros(5)}
    inner = {"encoder_layers": 3, "encoder_attention_heads": 4, "layer_norm_first": False}
    cfg = {"model": {"_name": "hubert_ctc", "w2v_args": {"model": inner}}, "task": {"normalize": False}}
    torch.save({"cfg": cfg, "model": tensors}, tmp_path / "model.pt")
    teacher = load_teacher(tmp_path / "model.pt")
    assert len(teacher.codebook.label_embeddings) == 11
    assert_same(teacher, transformers_states(model, False))


def test_base_size_through_all_formats(tmp_path, monkeypatch):
    """One HuBERT Base with random weights: Hugging Face, fairseq and torchaudio; 0.56 s of sound."""
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path))
    model, sizes = transformers_model("hubert"), SIZES[:1]
    model.save_pretrained(tmp_path / "folder")
    assert_same(load_teacher(tmp_path / "folder"), transformers_states(model, False), sizes)
    write_fairseq(tmp_path / "hubert_base_ls960.pt", model, clusters=500)
    teacher = load_teacher(tmp_path / "hubert_base_ls960.pt")
    assert len(teacher.codebook.label_embeddings) == 500
    assert_same(teacher, transformers_states(model, False), sizes)
    model = torchaudio.models.wav2vec2.utils.import_huggingface_model(model).eval()
    torch.save(model.state_dict(), tmp_path / torchaudio.pipelines.HUBERT_BASE._path)
    teacher = load_teacher(tmp_path / torchaudio.pipelines.HUBERT_BASE._path)
    assert_same(teacher, torchaudio_states(model, False), sizes)


def test_wavlm_base_size_and_long_distances(tmp_path):
    """Half a second of WavLM Base; and 20 s in a small one, where the logarithmic buckets come into play."""
    model = transformers_model("wavlm")
    model.save_pretrained(tmp_path / "base")
    assert_same(load_teacher(tmp_path / "base"), transformers_states(model, False), SIZES[:1])
    model = transformers_model("wavlm", **SMALL)
    model.save_pretrained(tmp_path / "small")
    wave = torch.randn(1, 320_000)
    with torch.no_grad():
        ours = load_teacher(tmp_path / "small").hidden(wave, torch.tensor([320_000])).last
        torch.testing.assert_close(ours, model(wave).last_hidden_state, atol=TOLERANCE, rtol=0)


def test_distilhubert_has_no_norm_after_its_cnn(tmp_path):
    model = transformers_model("hubert", **SMALL | DISTILHUBERT)
    assert not any("feature_projection.layer_norm" in name for name in model.state_dict())
    write_folder(tmp_path / "folder", model)
    teacher = load_teacher(tmp_path / "folder")
    assert_same(teacher, transformers_states(model, False))
    save_model(tmp_path / "own.safetensors", teacher.model, {})
    assert_same(load_teacher(tmp_path / "own.safetensors"), transformers_states(model, False))
    copied = new_student(teacher.config, teacher.model).from_teacher
    assert "projection" in copied and "CNN's LayerNorm" not in copied
    with torch.device("meta"):
        with_norm, without = (SpeechModel(ModelConfig(layers=2, feature_norm=yes)) for yes in (True, False))
    counts = [parameter_count(model) for model in (with_norm, without)]
    assert counts[0] - counts[1] == 2 * 512 and round(counts[1] / 1e6, 2) == 23.49, "as published"


def test_kdkits_own_checkpoint_keeps_everything(tmp_path):
    model = transformers_model("wavlm", True, **SMALL)
    model.save_pretrained(tmp_path / "folder")
    teacher = load_teacher(tmp_path / "folder")
    save_model(tmp_path / "teacher.safetensors", teacher.model, {"steps": 3})
    again = load_teacher(tmp_path / "teacher.safetensors")
    assert again.config == teacher.config and again.meta["steps"] == 3
    assert_same(again, transformers_states(model, True))


def test_what_kdkit_exports_to_hugging_face_comes_back(tmp_path):
    recogniser, _ = load_recogniser(ASSETS / "recogniser_teacher_pretrained_60.safetensors")
    export_huggingface(recogniser, tmp_path)
    batch, lengths = waves()
    with torch.no_grad():
        expected, found = recogniser.model(batch, lengths), load_teacher(tmp_path).hidden(batch, lengths)
    for own, back in zip(expected.hidden, found.hidden, strict=True):
        assert (own - back)[expected.mask].abs().max() < TOLERANCE


def test_the_shipped_teacher_and_how_it_is_reached():
    teacher = kdkit.load_teacher()
    assert teacher.config.layers == 12 and len(teacher.codebook.label_embeddings) == 200
    assert "4.0 M parameters, 12 layers of width 160" in str(teacher) and "200 clusters" in str(teacher)
    with pytest.raises(AttributeError, match="load_pupil"):
        kdkit.load_pupil  # noqa: B018
    code = (
        "import sys, kdkit; print('torch' in sys.modules); kdkit.load_teacher; print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "True"]


def test_wavlm_in_bf16_is_near_float32(tmp_path):
    transformers_model("wavlm", **SMALL).save_pretrained(tmp_path)
    teacher = load_teacher(tmp_path)
    batch, lengths = waves()
    exact = teacher.hidden(batch, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        rough = teacher.hidden(batch, lengths)
    real = exact.mask
    assert (rough.last.float() - exact.last)[real].abs().mean() < 0.05
