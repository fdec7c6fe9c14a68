"""Teachers from every source against the reference implementations, layer by layer.

Padding: the group norm of transformers' and torchaudio's Base models runs over the padding, so their hidden states
change with the batch. kdkit gives every utterance what it has alone; so padded batches are compared with the reference
run on one utterance at a time.
"""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
import torchaudio
from formats import KINDS, SMALL, SMALL_TORCHAUDIO, fairseq_tensors, shake, transformers_model, write_fairseq
from safetensors.torch import load_file
from transformers import HubertForCTC

import kdkit
from kdkit.codebook import Codebook
from kdkit.ctc import load_recogniser
from kdkit.export.huggingface import export_huggingface
from kdkit.frontends import normalise_waves
from kdkit.teachers import ASSETS, Teacher, load_teacher, save_model

TOLERANCE = 1e-4
SIZES = (9000, 16_000, 4321)


def waves() -> tuple[torch.Tensor, torch.Tensor]:
    """A padded batch with an offset, so that normalisation matters."""
    generator = torch.Generator().manual_seed(1)
    batch = torch.zeros(len(SIZES), max(SIZES))
    for row, size in enumerate(SIZES):
        batch[row, :size] = 0.2 * torch.randn(size, generator=generator) + 0.05
    return batch, torch.tensor(SIZES)


@torch.no_grad()
def assert_same(teacher: Teacher, states, sizes=SIZES) -> float:
    """Every layer of a padded batch against ``states(wave (1, S))`` of the reference; the largest difference."""
    batch, lengths = waves()
    batch, lengths = batch[: len(sizes)], lengths[: len(sizes)]
    output, largest = teacher.hidden(batch, lengths), 0.0
    assert not any(p.requires_grad for p in teacher.model.parameters()) and not teacher.model.training
    for row, size in enumerate(sizes):
        reference, frames = states(batch[row : row + 1, :size]), int(output.frames[row])
        assert len(reference) == len(output.hidden)
        for ours, theirs in zip(output.hidden, reference, strict=True):
            assert theirs.shape[1] == frames
            largest = max(largest, (ours[row, :frames] - theirs[0]).abs().max().item())
    assert largest < TOLERANCE
    return largest


def transformers_states(model, normalise: bool):
    def states(wave):
        output = model(F.layer_norm(wave, wave.shape[1:]) if normalise else wave, output_hidden_states=True)
        return [
            *output.hidden_states[:-1],
            output.last_hidden_state,
        ]  # versions differ on a pre-norm model's last

    return states


def torchaudio_states(model, normalise: bool):
    def states(wave):
        wave = F.layer_norm(wave, wave.shape[1:]) if normalise else wave
        features, _ = model.feature_extractor(wave, None)
        transformer = model.encoder.transformer
        first = transformer._preprocess(model.encoder.feature_projection(features))
        later = model.extract_features(wave)[0]
        pre_norm = (
            not transformer.layer_norm_first
        )  # in torchaudio this says where the norm before the layers stands
        return [first, *later[:-1], transformer.layer_norm(later[-1]) if pre_norm else later[-1]]

    return states


# --- parity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("safe", [True, False])
def test_a_hugging_face_folder(kind, large, safe, tmp_path):
    model = transformers_model(kind, large, **SMALL)
    model.save_pretrained(tmp_path)
    if not safe:  # as older versions wrote it: a pickle, weight norm under its old names
        tensors = load_file(tmp_path / "model.safetensors")
        old = {
            "parametrizations.weight.original0": "weight_g",
            "parametrizations.weight.original1": "weight_v",
        }
        for new, name in old.items():
            tensors = {n.replace(new, name): t for n, t in tensors.items()}
        assert any("weight_g" in name for name in tensors)
        torch.save(tensors, tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    teacher = load_teacher(tmp_path)
    assert teacher.meta["architecture"] == kind and teacher.codebook is None
    assert teacher.config.normalise_input == large and teacher.config.pre_norm == large
    assert_same(teacher, transformers_states(model, large))


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_batch_of_a_large_model_is_the_references_padded_batch(kind, tmp_path):
    """LayerNorm does not look at other frames, so here the reference can be given the whole batch."""
    model = transformers_model(kind, True, **SMALL)
    model.save_pretrained(tmp_path)
    batch, lengths = waves()
    ours = load_teacher(tmp_path).hidden(batch, lengths)
    mask = torch.arange(batch.shape[1]) < lengths[:, None]
    with torch.no_grad():
        theirs = model(normalise_waves(batch, lengths), attention_mask=mask.long(), output_hidden_states=True)
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
    monkeypatch.setattr(bundle, "_params", parameters)
    torch.manual_seed(0)
    build = torchaudio.models.wavlm_model if "WAVLM" in name else torchaudio.models.wav2vec2_model
    model = shake(build(**parameters))
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
    assert_same(teacher, transformers_states(model, large))
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
    settings = {
        "encoder_layers": 3,
        "encoder_attention_heads": 4,
        "layer_norm_first": True,
        "normalize": True,
    }
    settings |= {"relative_position_embedding": True, "num_buckets": 320, "max_distance": 800}
    torch.save({"cfg": settings, "model": fairseq_tensors(model)}, path)
    assert_same(load_teacher(path), transformers_states(model, True))


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
    with pytest.raises(AttributeError, match="load_student"):
        kdkit.load_student  # noqa: B018
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
