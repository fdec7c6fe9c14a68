"""Frames against their labels, measures against scikit-learn and textbook formulas, the probe end to end."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.preprocessing import StandardScaler

from kdkit import probing
from kdkit.common.errors import ManifestError
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.probing.activations import Frames, ModelLayers, collect, fbank_deltas
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import Utterance, frame_phones

SMALL = ModelConfig(layers=2, dim=32, ffn=32, heads=2, conv_channels=(8,) * 7, pos_kernel=16, pos_groups=4)


def numbers(waves, lengths):
    """An extractor that tells which frame was taken: (utterance's samples, frame number)."""
    frames = num_frames(lengths)
    number = torch.arange(int(frames.max()))[None, :, None].expand(len(waves), -1, 1)
    return [number.float(), lengths[:, None, None].expand_as(number).float()], frames


def test_frames_carry_the_phone_that_is_under_them(utterances):
    sample = collect(numbers, utterances, frames=10_000)
    for frame, samples, phone, i, speaker in zip(
        *(layer[:, 0] for layer in sample.features),
        sample.phones,
        sample.utterances,
        sample.speakers,
        strict=True,
    ):
        utterance = utterances[i]
        assert round(utterance.duration * 16_000) == samples
        assert utterance.speaker == speaker
        assert phone == frame_phones(utterance, int(frame) + 1)[int(frame)] != ""
    spoken = sum(p != "" for u in utterances for p in frame_phones(u, num_frames(round(u.duration * 16_000))))
    assert len(sample) == spoken, "asked for more than there are: all of them"


def test_sampling_is_bounded_repeatable_and_spread(utterances):
    sample = collect(numbers, utterances, frames=60, per_utterance=10)
    assert len(sample) == 60
    assert np.bincount(sample.utterances).max() == 10
    assert {s: (sample.speakers == s).sum() for s in sample.speakers} == {"s0": 20, "s1": 20, "s2": 20}
    pairs = set(zip(sample.utterances, sample.features[0][:, 0], strict=True))
    assert len(pairs) == 60, "no frame twice"
    again, other = (collect(numbers, utterances, frames=60, per_utterance=10, seed=s) for s in (0, 1))
    assert np.array_equal(sample.features[0], again.features[0])
    assert not np.array_equal(sample.features[0], other.features[0])
    assert len(collect(numbers, utterances[:2], frames=60, per_utterance=10)) == 60, (
        "short corpus: more of each"
    )


def test_a_corpus_without_phones_is_refused():
    with pytest.raises(ManifestError, match="none of the 1 utterances has phone times"):
        collect(numbers, [Utterance("u", "nowhere.wav", 1.0)])


def test_fbank_deltas_are_kaldi_with_deltas_at_every_second_frame():
    lengths = torch.tensor([5000, 7013])
    waves = 0.1 * torch.randn(2, 7013, generator=torch.Generator().manual_seed(0))
    [features], frames = fbank_deltas(waves, lengths)
    assert features.shape[-1] == 240
    assert frames.tolist() == num_frames(lengths).tolist()
    for row, length, count in zip(range(2), lengths.tolist(), frames.tolist(), strict=True):
        static = torchaudio.compliance.kaldi.fbank(
            32768 * waves[row : row + 1, :length], num_mel_bins=80, dither=0.0, high_freq=8000.0
        )
        first = torchaudio.functional.compute_deltas(static.T)
        second = torchaudio.functional.compute_deltas(first)
        expected = torch.cat([static.T, first, second]).T[::2]
        assert len(expected) == count
        torch.testing.assert_close(features[row, :count], expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("front_end", ["waveform", "fbank"])
def test_model_layers_are_the_models_own(front_end):
    model = SpeechModel(ModelConfig(**{**SMALL.to_dict(), "front_end": front_end})).train()
    waves, lengths = torch.randn(2, 4000), torch.tensor([4000, 3000])
    extract = ModelLayers(model)
    layers, frames = extract(waves, lengths)
    assert model.training and not model.front_end._forward_hooks, "left as it was found"
    model.eval()
    with torch.no_grad():
        expected = model(waves, lengths)
        first = (
            model.front_end.cnn(waves, lengths)
            if front_end == "waveform"
            else model.front_end(waves, lengths)
        )
    assert extract.names == ["Fbank + deltas", "front-end", "H0", "H1", "H2"]
    assert torch.equal(frames, expected.frames)
    for layer, truth in zip(layers[1:], [first, *expected.hidden], strict=True):
        torch.testing.assert_close(layer, truth)


def clouds(n: int, seed: int):
    """Five classes in 20 dimensions that are correlated and of very different spread."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 5, n)
    x = (
        np.random.default_rng(7).normal(size=(5, 20))[y]
        + rng.normal(size=(n, 20)) @ np.diag(np.logspace(-1, 1, 20)) * 0.4
    )
    return (x @ np.random.default_rng(8).normal(size=(20, 20))).astype("float32"), y


def test_linear_probe_is_logistic_regression():
    (x, y), (test_x, test_y) = clouds(600, 0), clouds(1000, 1)
    accuracy, predicted = probing.linear_probe(x, y, test_x, test_y, 5)
    scaler = StandardScaler().fit(x)
    reference = LogisticRegression(C=1 / (600 * 2e-3), max_iter=1000).fit(scaler.transform(x), y)
    assert (predicted == reference.predict(scaler.transform(test_x))).mean() > 0.99
    assert accuracy == (predicted == test_y).mean() > 0.5


def test_linear_probe_counts_unknown_phones_as_errors_and_bears_constant_features():
    x, y = clouds(500, 0)
    x[:, 3] = 1.0
    accuracy, _ = probing.linear_probe(x, y, x, np.where(y == 4, -1, y), 5)
    assert accuracy < (y != 4).mean() + 1e-9
    assert np.isfinite(accuracy)


LABELS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=60)


@settings(deadline=None, max_examples=40)
@given(LABELS)
def test_pnmi_is_mutual_information_over_phone_entropy(pairs):
    ids, phones = zip(*pairs, strict=True)
    entropy = mutual_info_score(phones, phones)
    expected = mutual_info_score(phones, ids) / entropy if entropy > 1e-12 else 0.0
    assert probing.pnmi(ids, phones) == pytest.approx(expected, abs=1e-9)


def test_pnmi_and_purities_at_the_ends_and_by_hand():
    phones = ["a", "a", "b", "b", "c", "c"]
    assert probing.pnmi([9, 9, 4, 4, 7, 7], phones) == pytest.approx(1)
    assert probing.pnmi([1, 2, 1, 2, 1, 2], phones) == pytest.approx(0, abs=1e-12)
    ids = [0, 0, 0, 1, 1, 1]
    assert probing.phone_purity(ids, phones) == pytest.approx(4 / 6)
    assert probing.cluster_purity(ids, phones) == pytest.approx(5 / 6)


def test_linear_cka_is_hsic_of_linear_kernels():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 8)), rng.normal(size=(50, 5))
    centre = np.eye(50) - 1 / 50

    def hsic(a, b):
        return np.trace(a @ a.T @ centre @ b @ b.T @ centre)

    assert probing.linear_cka(x, y) == pytest.approx(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)))
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    assert probing.linear_cka(x, 3 * x @ rotation + 2) == pytest.approx(1)


def test_layer_change():
    x = np.random.default_rng(0).normal(size=(30, 4))
    quarter_turn = np.stack([-x[:, 1], x[:, 0], -x[:, 3], x[:, 2]], 1)
    assert probing.layer_change([x, 2 * x, -x, quarter_turn]) == pytest.approx([0, 2, 1], abs=1e-9)


def test_phone_probe_end_to_end(utterances):
    torch.manual_seed(0)
    probe = probing.phone_probe(
        SpeechModel(SMALL), utterances[:6], utterances[6:], frames=400, test_frames=200
    )
    assert probe.fbank.accuracy > 0.9, "Fbank tells tones apart"
    assert len(probe.layers) == 3
    assert probe.phones == ("a", "b", "c", "d")
    for s in (probe.fbank, probe.front_end, *probe.layers):
        assert 0 <= s.low <= s.accuracy <= s.high <= 1
    assert probe.confusion.sum() == probe.test_frames <= 200
    assert np.trace(probe.confusion) / probe.test_frames == pytest.approx(probe.layers[probe.best].accuracy)
    low, high = probe.gain.interval
    assert low <= probe.gain.difference <= high and probe.gain.measure == "phone accuracy"
    values = json.loads(json.dumps(probe.to_dict()))
    assert values["best_layer"] == probe.best
    assert set(values["accuracy"]) >= {"H0", "H2", "front-end"}
    assert f"best: H{probe.best}" in str(probe)
    of_one_utterance = replace(probe.fbank, low=float("nan"), high=float("nan"))
    assert "nan" not in str(replace(probe, fbank=of_one_utterance))


def test_dev_frames_choose_the_layer_and_test_frames_judge_it():
    """Two layers that each know half: H0 is right on what test has much of, H1 on what dev has much of."""
    rng = np.random.default_rng(0)

    def frames(many: str, few: str) -> Frames:
        phones = np.array([*many * 90, *few * 10])
        sure = np.array([[5.0, 0.0] if phone in "ab" else [0.0, 5.0] for phone in phones])
        which = np.array([[4.0 * (phone in "ac")] for phone in phones])
        noise = rng.normal(size=(len(phones), 1))
        tell_ab, tell_cd = (
            np.where(np.isin(phones, list(pair))[:, None], which, noise) for pair in ("ab", "cd")
        )
        layers = [np.hstack([sure, part]).astype(np.float32) for part in (noise, noise, tell_ab, tell_cd)]
        owners = np.arange(len(phones)) % 10
        return Frames(
            layers, phones, owners, np.full(len(phones), "x"), ["Fbank + deltas", "front-end", "H0", "H1"]
        )

    train, test, dev = frames("abcd", "abcd"), frames("ab", "cd"), frames("cd", "ab")
    on_test, on_dev = probing.probe_layers(train, test), probing.probe_layers(train, test, dev=dev)
    assert on_test.best == 0 and on_dev.best == 1 and on_dev.on_dev[1] > on_dev.on_dev[0]
    assert on_dev.layers == on_test.layers  # judged on test frames in both cases
    assert on_dev.gain.difference == pytest.approx(on_test.layers[1].accuracy - on_test.fbank.accuracy)
    assert on_dev.gain.interval[0] <= on_dev.gain.difference <= on_dev.gain.interval[1]
    assert np.trace(on_dev.confusion) / len(test) == pytest.approx(on_dev.layers[1].accuracy)
    assert on_dev.to_dict()["best_layer_chosen_on"] == "dev" and "best on dev frames: H1" in str(on_dev)
    assert on_test.to_dict()["best_layer_chosen_on"] == "test"


def test_the_last_layer_alone_is_the_last_of_all(utterances):
    torch.manual_seed(0)
    model = SpeechModel(SMALL)
    sizes = {"frames": 400, "test_frames": 200}
    whole = probing.phone_probe(model, utterances[:6], utterances[6:], **sizes)
    alone = probing.phone_probe(model, utterances[:6], utterances[6:], last_only=True, **sizes)
    assert alone.layers == whole.layers[-1:] and alone.fbank == whole.fbank
    last = alone.layers[-1]
    assert last.hits == whole.layers[-1].hits and sum(last.totals) == alone.test_frames
    assert sum(last.hits) / sum(last.totals) == pytest.approx(last.accuracy)


def test_the_probe_cannot_do_it_without_the_right_labels(utterances):
    layers = ModelLayers(SpeechModel(SMALL))
    train, test = (collect(layers, part, 300) for part in (utterances[:6], utterances[6:]))
    train.phones = np.random.default_rng(0).permutation(train.phones)
    assert probing.probe_layers(train, test).fbank.accuracy < 0.5


def test_layer_pnmi_and_cka_map(utterances):
    layers = ModelLayers(SpeechModel(SMALL))
    train, test = (collect(layers, part, 300) for part in (utterances[:6], utterances[6:]))
    scores = probing.layer_pnmi(train, test, clusters=8)
    assert [s.name for s in scores] == layers.names
    assert scores[0].pnmi > 0.7
    assert scores == probing.layer_pnmi(train, test, clusters=8)
    values = probing.cka_map(test, test)
    assert np.diag(values) == pytest.approx(np.ones(5), abs=1e-4)
    assert np.allclose(values, values.T, atol=1e-5)
