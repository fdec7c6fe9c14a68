"""CTC models of transformers and torchaudio as recognisers: the same logits and text, whatever is done with them."""

import json
import os
from dataclasses import replace

import pytest
import torch
import torchaudio
from formats import (
    LARGE,
    SMALL,
    SMALL_LARGE_TORCHAUDIO,
    SMALL_TORCHAUDIO,
    shake,
    shrunk,
    torchaudio_model,
    transformers_model,
    write_fairseq,
)
from typer.testing import CliRunner

from kdkit import Recogniser
from kdkit.commands.main import app
from kdkit.common.errors import CheckpointError, NoRecogniserError
from kdkit.model.speech_model import SpeechModel
from kdkit.recognition.arpa import read_arpa
from kdkit.recognition.ctc import trainable
from kdkit.recognition.decode import collapse
from kdkit.recognition.export.onnx import EXPORTS
from kdkit.recognition.loading import load_network, load_start
from kdkit.recognition.search import available
from kdkit.speech.audio import read_audio
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.manifest import read_manifest, write_manifest
from kdkit.speech.text import VOCABULARY
from kdkit.teachers.bundles import BUNDLES

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
    # transformers 4 would write "a 'b" as "a'b"
    return logits, processor.decode(logits.argmax(-1), clean_up_tokenization_spaces=False)


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
    small = SMALL_LARGE_TORCHAUDIO if bundle._normalize_waveform else SMALL_TORCHAUDIO
    monkeypatch.setattr(bundle, "_params", small | {"aux_num_out": len(bundle.get_labels())})
    monkeypatch.setitem(BUNDLES, name, shrunk(BUNDLES[name], small))
    network = torchaudio_model(name, small | {"aux_num_out": size})
    with torch.no_grad():
        wave = sound()[None]
        wave = torch.nn.functional.layer_norm(wave, wave.shape) if bundle._normalize_waveform else wave
        states = network.extract_features(wave)[0][-1][0]
        network.aux.weight.normal_().div_((states - states.mean(0)).std(0))
        network.aux.bias.copy_(-network.aux.weight @ states.mean(0))
    path = cache / "teachers" / BUNDLES[name].file
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


# ----------------------------------------------------------------------------------------------- what is done with them

TRAINED = "teacher_pretrained_60"  # the shipped recogniser with a waveform CNN that knows most words


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return build_synthetic(tmp_path_factory.mktemp("corpus"), {"dev": 0.4, "train": 0.2}, progress=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder that ``kdkit export`` writes of ``TRAINED``."""
    folder = tmp_path_factory.mktemp("exported") / "hf"
    told = run("export", TRAINED, "--to", "huggingface", "--out", folder)
    assert float(told.split("largest difference from PyTorch: ")[1].split()[0]) < 1e-3
    return folder


def run(*arguments) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def manifest(tmp_path, utterances):
    write_manifest(tmp_path / "some.jsonl", utterances)
    return tmp_path / "some.jsonl"


def test_what_export_wrote_is_the_same_recogniser(tmp_path, exported, speech):
    ours, again = (Recogniser.load(source) for source in (TRAINED, exported))
    assert again.network.window == ours.network.window
    assert again.network.vocabulary.symbols[1:] == VOCABULARY.symbols[1:]
    processor = transformers.AutoProcessor.from_pretrained(exported)
    network = transformers.AutoModelForCTC.from_pretrained(exported).eval()
    pipe = transformers.pipeline(
        "automatic-speech-recognition",
        model=network,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
    )
    right = 0
    for utterance in speech["dev"]:
        wave = read_audio(utterance.audio)
        text = ours(utterance.audio)
        assert again(utterance.audio) == again(wave.numpy(), 16_000) == text
        assert " ".join(pipe({"raw": wave.numpy(), "sampling_rate": 16_000})["text"].split()) == text
        right += text == utterance.text
    assert right > 1, "it is speech that they agree on"
    data = manifest(tmp_path, speech["dev"])
    rates = [run("evaluate", source, "--data", data, "--examples", 0) for source in (TRAINED, exported)]
    assert rates[0].split(";")[0] == rates[1].split(";")[0] and "greedy: WER" in rates[0]
    files = [u.audio for u in speech["dev"][:3]]
    lines = [run("transcribe", source, *files) for source in (TRAINED, exported)]
    assert lines[0] == lines[1] and lines[0].count("\t") == 3


def test_fine_tuning_keeps_the_head(tmp_path, exported, speech):
    arguments = (
        "--data",
        manifest(tmp_path, speech["train"]),
        "--steps",
        1,
        "--lr",
        1e-9,
        "--batch-seconds",
        8,
    )
    told = run("finetune", exported, *arguments, "--out", tmp_path / "kept")
    assert f"CTC head: that of {exported}, 29 symbols: ' a-z and space" in told
    before, after = load_network(exported), load_network(tmp_path / "kept" / "recogniser.safetensors")
    assert after.vocabulary == before.vocabulary
    torch.testing.assert_close(after.head.weight, before.head.weight, atol=1e-6, rtol=0)
    [row] = json.loads((tmp_path / "kept" / "results.json").read_text())
    assert row["head"] == "kept" and row["from"] == exported.name
    told = run("finetune", exported, *arguments, "--new-head", "--out", tmp_path / "new")
    assert "CTC head: new, 29 symbols" in told
    new = load_network(tmp_path / "new" / "recogniser.safetensors")
    assert new.vocabulary == VOCABULARY and not torch.allclose(new.head.weight, before.head.weight, atol=1e-2)
    torch.testing.assert_close(
        new.model.encoder.layers[3].ffn_in.weight, before.model.encoder.layers[3].ffn_in.weight
    )


def test_a_folder_with_capitals_all_the_way(tmp_path, speech):
    """WavLM from transformers: fine-tuned with its head, exported to transformers and ONNX, evaluated, timed."""
    folder = write_model(tmp_path / "wavlm", ctc_model("wavlm", len(ENGLISH)), ENGLISH)
    data = manifest(tmp_path, speech["train"])
    tuned = tmp_path / "tuned" / "recogniser.safetensors"
    told = run("finetune", folder, "--data", data, "--steps", 2, "--dev", data, "--out", tuned.parent)
    assert "CTC head: that of" in told and "32 symbols: ' A-Z and space" in told
    recogniser = load_network(tuned)
    assert recogniser.vocabulary == load_network(folder).vocabulary
    assert recogniser.vocabulary.silent == (1, 2, 3) and recogniser.vocabulary[5] == "E"
    run("export", tuned, "--to", "huggingface", "--out", tmp_path / "again")
    assert load_network(tmp_path / "again").vocabulary == recogniser.vocabulary
    sources = [tuned, tmp_path / "again"]
    if EXPORTS:
        pytest.importorskip("onnxruntime")
        run("export", tuned, "--out", tmp_path / "r.onnx")
        sources.append(tmp_path / "r.onnx")
    told = [run("evaluate", source, "--data", data, "--examples", 2) for source in sources]
    assert len({said.split("greedy")[0] for said in told}) == 1
    assert "greedy: WER" in told[0]
    arguments = "bench inference --size tiny --shape 1x0.4 --rounds 1 --precision plain --model"
    told = run(*arguments.split(" "), folder)
    assert f"{folder}"[:26] in told


def test_bundles_of_torchaudio_are_fine_tuned_and_written_down(tmp_path, monkeypatch, speech):
    bundle_in_cache(tmp_path, monkeypatch, "WAV2VEC2_ASR_BASE_960H")
    audio = speech["dev"][0].audio
    line = run("transcribe", "WAV2VEC2_ASR_BASE_960H", audio)
    text = Recogniser(load_network("WAV2VEC2_ASR_BASE_960H"))(audio)
    assert line == f"{audio}\t{text}\n" and text == text.lower() != ""
    data = manifest(tmp_path, speech["train"])
    told = run("finetune", "WAV2VEC2_ASR_BASE_960H", "--data", data, "--steps", 1, "--out", tmp_path / "out")
    assert "CTC head: that of WAV2VEC2_ASR_BASE_960H, 29 symbols: ' A-Z and space" in told


def test_students_and_teachers_get_a_new_head(tmp_path, speech):
    data = manifest(tmp_path, speech["train"])
    told = run("finetune", "tiny-sw-fbank", "--data", data, "--steps", 1, "--out", tmp_path / "out")
    assert "CTC head: new, 29 symbols: ' a-z and space" in told
    network = ctc_model("hubert", 7).hubert
    network.save_pretrained(tmp_path / "hubert")
    assert isinstance(load_start(tmp_path / "hubert"), SpeechModel)
    start = load_start(TRAINED)
    assert start.head.weight.requires_grad and start.model.encoder.layers[0].ffn_in.weight.requires_grad


def test_a_front_end_is_swapped_under_the_same_head(tmp_path, speech):
    folder = write_model(tmp_path / "hubert", ctc_model("hubert", len(ENGLISH)), ENGLISH)
    data = manifest(tmp_path, speech["train"])
    arguments = ("--data", data, "--adapt", 1, "--steps", 2, "--batch-seconds", 8)
    run("swap", folder, *arguments, "--out", tmp_path / "fast")
    before, after = load_network(folder), load_network(tmp_path / "fast" / "recogniser.safetensors")
    assert after.vocabulary == before.vocabulary and after.window == before.window
    assert after.model.config.front_end == "fbank"
    torch.testing.assert_close(after.head.weight, before.head.weight)


def test_phone_times_by_a_folder(tmp_path, exported, speech):
    data = manifest(tmp_path, [replace(u, phones=()) for u in speech["train"][:2]])
    for source, name in ((exported, "one"), (TRAINED, "other")):
        run("align", data, "--recogniser", source, "--out", tmp_path / f"{name}.jsonl")
    one, other = (read_manifest(tmp_path / f"{name}.jsonl") for name in ("one", "other"))
    assert [u.phones for u in one] == [u.phones for u in other] and all(u.phones for u in one)


GERMAN = {"[PAD]": 0, "|": 1} | {letter: 2 + i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyzäöüß")}


def test_letters_of_another_language_are_kept_on_every_way(tmp_path, speech):
    folder = write_model(tmp_path / "de", ctc_model("hubert", 32), GERMAN, pad_token="[PAD]", unk_token=None)
    assert load_network(folder).vocabulary.known() == "a-z ß ä ö ü and space"
    text = tmp_path / "text.txt"
    text.write_text("Schön, für die Straße!\nCafé für Æsop\n", encoding="utf-8")
    run("lm", text, "--order", 2, "--out", tmp_path / "de.arpa", "--recogniser", folder)
    assert read_arpa(tmp_path / "de.arpa").words == ("cafe", "die", "für", "schön", "straße")
    run("lm", text, "--order", 2, "--out", tmp_path / "en.arpa")
    assert read_arpa(tmp_path / "en.arpa").words == ("cafe", "die", "fur", "schon")
    [utterance] = trainable(
        [replace(speech["dev"][0], text="Schön, für Café!")], load_network(folder).vocabulary
    )
    assert utterance.text == "schön für cafe"
    if available():
        audio = speech["dev"][0].audio
        line = run("transcribe", folder, audio, "--lexicon", text)
        assert set(line.split("\t")[1].split()) <= {"cafe", "die", "für", "schön", "straße"}
        line = run("transcribe", folder, audio, "--lm", tmp_path / "de.arpa", "--lm-weight", 0.5)
        assert set(line.split("\t")[1].split()) <= {"cafe", "die", "für", "schön", "straße"}


def test_models_with_adapters_are_refused_by_name(tmp_path):
    folder = write_model(tmp_path, ctc_model("wav2vec2", 32, large=True, adapter_attn_dim=16), ENGLISH)
    with pytest.raises(CheckpointError, match="adapter_attn_dim is 16"):
        load_network(folder)


def test_a_checkpoint_of_fairseq_points_to_what_has_letters(tmp_path):
    write_fairseq(tmp_path / "tuned.pt", transformers_model("hubert", **SMALL))
    with pytest.raises(NoRecogniserError, match=r"does not say what letters.*HUBERT_ASR_LARGE"):
        load_network(tmp_path / "tuned.pt")
