"""CTC models of transformers and torchaudio as recognisers: the same logits and text, whatever is done with them."""

import json
import os

import pytest
import torch
import torchaudio
from formats import LARGE, SMALL, SMALL_TORCHAUDIO, shake, torchaudio_model

from kdkit.decode import collapse
from kdkit.errors import CheckpointError, NoRecogniserError
from kdkit.networks import load_network
from kdkit.teachers.bundles import bundle_url

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

ENGLISH = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4} | {
    letter: 5 + i for i, letter in enumerate("ETAONIHSRDLUMWCFGYPBVK'XJQZ")
}
KINDS = {
    "hubert": ("HubertConfig", "HubertForCTC"),
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2ForCTC"),
    "wavlm": ("WavLMConfig", "WavLMForCTC"),
}


def sound(samples: int = 48_000, seed: int = 0) -> torch.Tensor:
    """Syllables of tones and noise, loud and quiet, with an offset: what a network of random weights tells apart."""
    generator = torch.Generator().manual_seed(seed)
    seconds = torch.arange(samples) / 16_000
    pitch = 120 + 400 * torch.rand(1 + samples // 1600, generator=generator).repeat_interleave(1600)[:samples]
    loud = torch.rand(1 + samples // 2400, generator=generator).repeat_interleave(2400)[:samples]
    tone = torch.sin(2 * torch.pi * pitch * seconds) + torch.sin(2 * torch.pi * 7 * pitch * seconds)
    return 0.2 * loud * tone + 0.02 * torch.randn(samples, generator=generator) + 0.03


def ctc_model(kind: str, size: int, large: bool = False, seed: int = 0, **settings):
    """A small ``*ForCTC`` of random weights that writes many different letters."""
    torch.manual_seed(seed)
    config, model = (getattr(transformers, name) for name in KINDS[kind])
    settings = SMALL | (LARGE if large else {}) | settings
    network = shake(model(config(vocab_size=size, pad_token_id=0, **settings)))
    with torch.no_grad():
        states = getattr(network, kind)(sound()[None]).last_hidden_state[0]
        spread = (states - states.mean(0)).std(0)
        network.lm_head.weight.normal_().div_(spread)
        network.lm_head.bias.copy_(
            -network.lm_head.weight @ states.mean(0)
        )  # no letter is ahead in all frames
    return network


def write_model(folder, network, vocabulary: dict, normalise: bool = True, **tokens):
    """The folder as transformers writes it, with processor and tokenizer."""
    folder.mkdir(exist_ok=True)
    (folder / "words.json").write_text(json.dumps(vocabulary))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "words.json"), **tokens)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=True)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    network.save_pretrained(folder)
    return folder


def theirs(folder, wave: torch.Tensor) -> tuple[torch.Tensor, str]:
    """Logits (T, V) and text of transformers, as its documentation shows it."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    network = transformers.AutoModelForCTC.from_pretrained(folder).eval()
    values = processor(wave.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    with torch.inference_mode():
        logits = network(values).logits[0]
    return logits, processor.decode(logits.argmax(-1))


def ours(network, wave: torch.Tensor) -> tuple[torch.Tensor, str]:
    with torch.inference_mode():
        logits, frames = network(wave[None], torch.tensor([len(wave)]))
    numbers = logits[0].argmax(-1).tolist()
    assert len(numbers) == frames.item()
    return logits[0], network.vocabulary.decode(collapse(numbers))


@pytest.mark.parametrize(("large", "normalise"), [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("kind", list(KINDS))
def test_logits_and_text_are_those_of_transformers(tmp_path, kind, large, normalise):
    network = ctc_model(kind, len(ENGLISH), large)
    with torch.no_grad():
        network.lm_head.bias[1:4] -= 100  # <s>, </s>, <unk>, which transformers would write
        network.lm_head.bias[ENGLISH["|"]] += 5
    folder = write_model(tmp_path, network, ENGLISH, normalise)
    recogniser = load_network(folder)
    assert recogniser.model.config.normalise_input is normalise
    for seed in range(3):
        expected, text = theirs(folder, sound(seed=seed))
        logits, heard = ours(recogniser, sound(seed=seed))
        torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)
        assert heard == " ".join(text.lower().split()) and len(set(heard)) > 10 and " " in heard
    assert load_network(folder / "model.safetensors").vocabulary == recogniser.vocabulary


def test_what_has_no_head_is_no_recogniser(tmp_path):
    network = ctc_model("hubert", 7)
    network.hubert.save_pretrained(tmp_path)
    with pytest.raises(
        NoRecogniserError, match=f"{tmp_path}: a model without CTC head.*kdkit finetune makes one"
    ):
        load_network(tmp_path)


def test_a_vocabulary_that_does_not_fit_the_head(tmp_path):
    folder = write_model(tmp_path, ctc_model("hubert", 30), ENGLISH)  # 32 symbols
    assert len(load_network(folder).vocabulary) == 30, "symbols beyond the head are never said"
    (folder / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match=r"vocab.json: no such file.*the 30 outputs"):
        load_network(folder)


# ------------------------------------------------------------------------------------------------------- torchaudio


def bundle_in_cache(cache, monkeypatch, name: str) -> torch.nn.Module:
    """The file of a small bundle where a download would lie; returns torchaudio's model of it, which knows the labels.

    fairseq's special symbols are in the file, as in the published ones, and torchaudio takes them out.
    """
    monkeypatch.setenv("KDKIT_CACHE", str(cache))
    bundle = getattr(torchaudio.pipelines, name)
    size = len(bundle.get_labels()) + len(bundle._remove_aux_axis)
    monkeypatch.setattr(bundle, "_params", SMALL_TORCHAUDIO | {"aux_num_out": len(bundle.get_labels())})
    network = torchaudio_model(name, SMALL_TORCHAUDIO | {"aux_num_out": size})
    with torch.no_grad():
        wave = sound()[None]
        wave = torch.nn.functional.layer_norm(wave, wave.shape) if bundle._normalize_waveform else wave
        states = network.extract_features(wave)[0][-1][0]
        network.aux.weight.normal_().div_((states - states.mean(0)).std(0))
        network.aux.bias.copy_(-network.aux.weight @ states.mean(0))
    path = cache / "teachers" / bundle_url(name).rsplit("/", 1)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    monkeypatch.setattr(
        "torchaudio.pipelines._wav2vec2.utils.load_state_dict_from_url", lambda *_, **__: torch.load(path)
    )
    return bundle.get_model().eval()


@pytest.mark.parametrize("name", ["WAV2VEC2_ASR_BASE_960H", "HUBERT_ASR_LARGE", "VOXPOPULI_ASR_BASE_10K_DE"])
def test_a_bundle_writes_what_torchaudio_writes(tmp_path, monkeypatch, name):
    network, labels = (
        bundle_in_cache(tmp_path, monkeypatch, name),
        getattr(torchaudio.pipelines, name).get_labels(),
    )
    recogniser = load_network(name)
    assert recogniser.vocabulary.symbols == labels
    for seed in range(3):
        with torch.inference_mode():
            expected = network(sound(seed=seed)[None])[0][0]
        best = torch.unique_consecutive(expected.argmax(-1))
        text = "".join(labels[n] for n in best if n != 0).replace(
            "|", " "
        )  # as torchaudio's tutorial does it
        logits, heard = ours(recogniser, sound(seed=seed))
        torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)
        assert heard == " ".join(text.lower().split()) and len(set(heard)) > 10


def test_a_bundle_of_a_teacher_is_no_recogniser(tmp_path, monkeypatch):
    torch.save({"aux.weight": torch.zeros(1)}, tmp_path / "hubert_fairseq_base_ls960.pth")
    with pytest.raises(NoRecogniserError, match=r"HUBERT_BASE has no CTC head.*HUBERT_ASR_LARGE"):
        load_network(tmp_path / "hubert_fairseq_base_ls960.pth")
