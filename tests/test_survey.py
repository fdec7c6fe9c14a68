"""Speaker probe, intervals, codebook, attention, CKA on files and of two models; all of it together on a toy model."""

import json
import os
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from formats import SMALL as WAVLM_SIZES
from formats import transformers_model

from kdkit import probing
from kdkit.commands.models import probe as probe_command
from kdkit.common.errors import ConfigError, ManifestError, OutputError
from kdkit.lessons.plots import probe as figures
from kdkit.model.codebook import Codebook
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.probing import listening
from kdkit.probing.activations import Frames, ModelLayers, collect
from kdkit.probing.attention import attention_reach
from kdkit.probing.clusters import Usage, pnmi_interval
from kdkit.speech.audio import read_audio
from kdkit.speech.manifest import Utterance, write_manifest
from kdkit.teachers import Teacher, load_teacher, save_model

SMALL = ModelConfig(layers=2, dim=32, ffn=32, heads=2, conv_channels=(8,) * 7, pos_kernel=16, pos_groups=4)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


def toy_teacher(clusters: int = 6) -> Teacher:
    torch.manual_seed(0)
    return Teacher(SpeechModel(SMALL), Codebook(SMALL.dim, clusters, 8) if clusters else None, "toy")


def frames_of(features, speakers, utterances) -> Frames:
    speakers = np.array(speakers)
    return Frames(features, speakers.copy(), np.array(utterances), speakers, ["x"] * len(features))


def test_the_sample_lies_in_files_of_which_nothing_stays(utterances, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sample = collect(ModelLayers(toy_teacher()), utterances, 200)
    assert all(isinstance(x, np.memmap) for x in sample.features)
    assert all(np.abs(x).sum(1).all() for x in sample.features), "each row is written"
    if os.name == "posix":
        assert not list(tmp_path.iterdir()), "a killed process could not delete them"


def test_too_little_room_for_the_sample_is_said(utterances):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**10, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"ulimit -f"):
            collect(ModelLayers(toy_teacher()), utterances, 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_speaker_probe_hears_voices_in_other_utterances():
    rng = np.random.default_rng(0)
    speaker = np.repeat([0, 1, 2], 80)
    utterance = np.repeat(np.arange(24), 10)  # eight of each speaker
    voice = np.eye(3)[speaker] + 0.6 * rng.normal(size=(240, 3))
    sentence = np.eye(24)[utterance] + 0.01 * rng.normal(size=(240, 24))  # tells the utterance, not the voice
    names = np.array(["anna", "ben", "cleo"])[speaker]
    sample = frames_of([voice.astype("f"), sentence.astype("f")], names, utterance)
    heard, unheard = probing.probe_speakers(sample)
    assert heard.accuracy > 0.7 and heard.low < heard.accuracy < heard.high
    assert unheard.accuracy < 0.6, "judged on utterances that did not train it"
    assert probing.probe_speakers(sample) == [heard, unheard]
    with pytest.raises(ManifestError, match="two speakers with two utterances each"):
        probing.probe_speakers(frames_of([voice], names, speaker))


def test_the_interval_of_pnmi_is_that_of_utterances():
    rng = np.random.default_rng(0)

    def draw(n: int, seed: int):
        rng = np.random.default_rng(seed)
        phones = rng.integers(0, 5, (n, 20))
        noise = rng.random((n, 1)) * 0.6  # of an utterance: some are heard badly
        ids = np.where(rng.random((n, 20)) < noise, rng.integers(0, 5, (n, 20)), phones)
        return ids.ravel(), phones.ravel(), np.repeat(np.arange(n), 20)

    values = [probing.pnmi(*draw(40, seed)[:2]) for seed in range(200)]
    low, high = pnmi_interval(*draw(40, 1))
    assert high - low == pytest.approx(2 * 1.96 * np.std(values), rel=0.5)
    covered = [
        low <= np.mean(values) <= high
        for low, high in (pnmi_interval(*draw(40, seed)) for seed in range(100))
    ]
    assert np.mean(covered) > 0.85
    ids, phones, _ = draw(40, 0)
    shuffled = pnmi_interval(ids, phones, rng.integers(0, 400, len(ids)))
    assert shuffled[1] - shuffled[0] < high - low, "frames that are drawn singly look surer than they are"
    assert np.isnan(pnmi_interval(ids, phones, np.zeros(len(ids)))).all()


def test_codebook_usage_at_the_ends_and_by_hand():
    codebook = Codebook(4, 3, 4, tau=0.1)
    codebook.load_state_dict(
        {
            "final_proj.weight": torch.eye(4),
            "final_proj.bias": torch.zeros(4),
            "label_embeddings": torch.eye(4)[:3],
        }
    )
    hidden = np.eye(4, dtype="f")[[0, 0, 1, 1]]
    sharp, soft, flat = probing.codebook_usage(codebook.requires_grad_(False), hidden, (0.01, 0.5, 1e6))
    assert sharp.choices == pytest.approx(1, abs=1e-3) and sharp.top == pytest.approx(1, abs=1e-3)
    assert sharp.used == pytest.approx(2, abs=1e-3), "two of three ids, equally often"
    assert flat.choices == pytest.approx(3, abs=1e-3) and flat.used == pytest.approx(3, abs=1e-3)
    q = np.exp([2.0, 0, 0]) / np.exp([2.0, 0, 0]).sum()
    assert soft.choices == pytest.approx(np.exp(-(q * np.log(q)).sum()), rel=1e-4)
    assert soft.top == pytest.approx(q[0], rel=1e-4)


@pytest.mark.parametrize("wavlm", [False, True])
def test_attention_weights_give_the_attentions_output(wavlm, tmp_path):
    model = toy_teacher().model
    if wavlm:
        transformers_model("wavlm", True, **WAVLM_SIZES).save_pretrained(tmp_path)
        model = load_teacher(tmp_path).model
    seen = []
    for layer in model.encoder.layers:
        layer.attention.register_forward_hook(lambda module, call, out: seen.append((module, call[0], out)))
    weights = probing.attention_weights(model.train(), torch.randn(8000))
    assert model.training and len(weights) == len(seen) == model.config.layers
    for one, (attention, x, output) in zip(weights, seen, strict=True):
        assert one.shape == (attention.heads, x.shape[1], x.shape[1])
        torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:2]))
        value = attention.qkv(x).chunk(3, -1)[2].unflatten(-1, (attention.heads, -1))[0].transpose(0, 1)
        torch.testing.assert_close(
            attention.out((one @ value).transpose(0, 1).flatten(1)), output[0], atol=1e-4, rtol=1e-3
        )


def test_attention_distance():
    distance = probing.attention_distance(torch.tensor([[[1.0, 0, 0], [0, 0, 1], [0.5, 0, 0.5]]]))
    torch.testing.assert_close(distance, torch.tensor([[0, 0.02, 0.02]]))


def test_cka_on_files_is_cka_in_memory_and_of_two_models(utterances):
    teacher, student = toy_teacher(), toy_teacher()
    torch.nn.init.normal_(student.model.encoder.layers[1].ffn_out.weight)
    ours, theirs = (collect(ModelLayers(m), utterances, 300) for m in (teacher, student))
    values = probing.cka_map(ours, theirs)
    for i, x in enumerate(ours.features):
        for j, y in enumerate(theirs.features):
            a, b = (np.array(v, dtype=float) - np.array(v, dtype=float).mean(0) for v in (x, y))
            direct = np.trace(a @ a.T @ b @ b.T) / np.sqrt(
                np.trace(a @ a.T @ a @ a.T) * np.trace(b @ b.T @ b @ b.T)
            )
            assert values[i, j] == pytest.approx(direct, rel=1e-6)
    assert np.diag(values)[:4] == pytest.approx(np.ones(4)) and values[4, 4] < 0.999, (
        "only the last layer differs"
    )
    other = collect(ModelLayers(student), utterances, 300, seed=1)
    with pytest.raises(ConfigError, match="the same frames"):
        probing.cka_map(ours, other)


def test_changes_of_layers_have_intervals(utterances):
    sample = collect(ModelLayers(toy_teacher()), utterances, 300)
    changes = probing.layer_changes(sample)
    assert [value for value, _, _ in changes] == pytest.approx(
        probing.layer_change(sample.features[2:]).tolist()
    )
    assert all(low < value < high for value, low, high in changes)


def test_a_survey_of_a_teacher_and_against_another(utterances, tmp_path, capsys):
    teacher = toy_teacher()
    found = probing.survey(teacher, utterances, utterances, utterances, 1600, 5, toy_teacher(0), attended=3)
    assert found.names == ("Fbank + deltas", "front-end", "H0", "H1", "H2")
    assert len(found.change) == len(found.reach) == 2 and len(found.speakers) == len(found.clusters) == 5
    assert found.codebook.pnmi > 0 and [u.tau for u in found.usage] == sorted(u.tau for u in found.usage)
    assert np.diag(found.other_cka[..., 0]) == pytest.approx(np.ones(5)), "the same weights"
    rows = found.rows()
    assert [row["most like"].split()[0] for row in rows[2:]] == ["H0", "H1", "H2"]
    said = str(found)
    assert "Phones are best in" in said and "ids in use" in said and len({len(row) for row in rows}) == 1
    assert max(map(len, said.splitlines())) <= 100, "no wider than a terminal"
    measured = {key for key in rows[-1] if key not in ("layer", "most like")}
    assert all(" to " in rows[-1][key] for key in measured), "an interval for every measure"
    again = probing.survey(teacher, utterances, utterances, utterances, 1600, 5, toy_teacher(0), attended=3)
    assert again.to_dict() == found.to_dict(), "repeatable for a seed"
    json.dumps(found.to_dict(), allow_nan=False)
    assert figures.survey_figure(found)._repr_png_().startswith(b"\x89PNG")
    gone = replace(utterances[5], audio=tmp_path / "gone.wav")
    part = [gone, *utterances[:2]]
    alone = probing.survey(toy_teacher(0), utterances, utterances, part, 400, 5, attended=2)
    assert list(alone.reach) == attention_reach(toy_teacher(0), utterances[:2])
    assert alone.speakers == () and "needs two speakers" in capsys.readouterr().out
    assert alone.codebook is None and "other" not in alone.to_dict() and "most like" not in alone.rows()[0]
    assert figures.survey_figure(alone)._repr_png_().startswith(b"\x89PNG")


def test_speech_is_held_out_by_speaker():
    def spoken(*speakers):
        return [Utterance(f"{i}", Path("x.wav"), 1.0, "a", speaker) for i, speaker in enumerate(speakers)]

    train, dev = probing.held_out(spoken(*"aabbccddeeffgg"))
    assert {u.speaker for u in dev} == {"b", "g"} and {u.speaker for u in train} == set("acdef")
    train, dev = probing.held_out(spoken(*"aaaaaaa"))
    assert [u.id for u in dev] == ["1", "6"] and len(train) == 5
    assert [len(part) for part in probing.held_out(spoken(*"ab"))] == [1, 1]
    with pytest.raises(ManifestError, match="1 utterances do not divide"):
        probing.held_out(spoken("a"))


def test_the_command_saves_numbers_and_a_figure_of_ones_own_speech(utterances, tmp_path, capsys):
    teacher = toy_teacher()
    save_model(tmp_path / "toy.safetensors", teacher.model, {}, teacher.codebook)
    for name, part in (("train", utterances[:8]), ("test", utterances[4:])):
        write_manifest(tmp_path / f"{name}.jsonl", part)
    settings = {"minutes": 1, "test_minutes": 1, "frames": 1200, "clusters": 5, "seed": 0}
    model, data, out = str(tmp_path / "toy.safetensors"), tmp_path / "train.jsonl", tmp_path / "out"
    probe_command(model, model, data, tmp_path / "test.jsonl", out=out, **settings)
    assert "Phones are best in" in capsys.readouterr().out
    found = json.loads((out / "probe.json").read_text(encoding="utf-8"))
    assert found["against"] == model and set(found) >= {
        "phones",
        "speakers",
        "clusters",
        "cka",
        "usage",
        "other",
    }
    assert (out / "probe.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="--data and --test-data belong together"):
        probe_command(model, None, data, None, out=None, **settings)


def test_figures_of_attention_and_usage():
    weights = torch.rand(2, 30, 30)
    assert figures.attention_maps(weights, ((0.0, ""), (0.1, "a"))).axes[0].get_xlabel()
    usage = [Usage(tau, 1 + tau, 5.0, 0.5) for tau in (0.1, 1)]
    assert figures.usage_over_temperature(usage).axes[0].get_xlabel() == "temperature"


def test_a_cluster_can_be_listened_to(utterances):
    teacher = toy_teacher()
    found = listening.occurrences(teacher, utterances[:4])
    runs = [run for of_id in found.values() for run in of_id]
    for utterance in utterances[:4]:
        wave = read_audio(utterance.audio)
        own = sorted((run.begin, run.end) for run in runs if run.utterance is utterance)
        frames = (len(wave) - 400) // 320 + 1
        assert own[0][0] == 0 and own[-1][1] == frames and all(a[1] == b[0] for a, b in pairwise(own))
        ids = teacher.codebook(teacher.hidden(wave[None], torch.tensor([len(wave)])).last[0]).argmax(-1)
        for number, of_id in found.items():
            assert all((ids[r.begin : r.end] == number).all() for r in of_id if r.utterance is utterance)
    most = max(found.values(), key=len)
    assert sum(share for _, share in listening.phone_shares(most)) == pytest.approx(1)
    sound = listening.play(most, most=2)
    assert sound.abs().max() > 0.005 and len(sound) > 2 * 2400
    assert len(listening.play([])) and torch.isfinite(sound).all()
    with pytest.raises(ConfigError, match="has no codebook"):
        listening.occurrences(toy_teacher(0), utterances)
