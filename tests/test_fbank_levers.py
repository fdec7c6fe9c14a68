"""What may be changed in the Fbank front-end: bins, normalisation, floor, warped voices, depth, kernel, LayerNorm."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from kdkit.common.errors import ConfigError
from kdkit.fbank import (
    MOST_BINS,
    Fbank,
    FbankFrontEnd,
    VocalTract,
    corpus_statistics,
    fit_statistics,
    load_statistics,
    mel_filterbank,
    save_statistics,
)
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import Utterance
from kdkit.students import swap_front_end
from kdkit.teachers import load_model, save_model

SMALL = ModelConfig(
    front_end="fbank",
    layers=1,
    dim=16,
    ffn=16,
    heads=2,
    conv_channels=(4,) * 7,
    pos_kernel=8,
    pos_groups=4,
    dropout=0.0,
)
LEVERS = [
    {},
    {"bins": 24},
    {"normalisation": "mean"},
    {"normalisation": "utterance", "fbank_floor": 50.0},
    {"fbank_channels": 12, "bins": 40},
    {"fbank_kernel": 11, "fbank_channels": 24},
    {"fbank_kernel": 1},
    {"fbank_norm": True},
]
SIZES = (9000, 400, 5123, 12_345)


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("settings", LEVERS, ids=str)
def test_every_lever_keeps_frames_and_padding(settings, tmp_path):
    """As many frames as the waveform CNN, the same ones whatever the padding; the file brings the settings back."""
    torch.manual_seed(0)
    model = SpeechModel(replace(SMALL, **settings)).eval()
    waves = torch.zeros(len(SIZES), max(SIZES))
    for row, size in enumerate(SIZES):
        waves[row, :size] = noise(size, row)
    together = model(waves, torch.tensor(SIZES))
    assert together.last.shape[1] == num_frames(max(SIZES))
    for row, size in enumerate(SIZES):
        alone = model(waves[row : row + 1, :size], torch.tensor([size])).last[0]
        assert len(alone) == num_frames(size)
        torch.testing.assert_close(together.last[row, : len(alone)], alone, atol=1e-4, rtol=1e-4)
    save_model(tmp_path / "model.safetensors", model, {})
    again = load_model(tmp_path / "model.safetensors")[0]
    assert again.config == model.config
    assert torch.equal(again(waves, torch.tensor(SIZES)).last, together.last)


@pytest.mark.parametrize("bins", [20, 40, 80, MOST_BINS])
def test_filters_cover_the_spectrum_with_any_number_of_bins(bins):
    filters = mel_filterbank(bins)
    assert filters.shape == (257, bins) and (filters.sum(0) > 0).all()
    inside = filters[3:-12].sum(1)  # between the first and the last centre, triangles add up to 1
    if bins <= 40:
        torch.testing.assert_close(inside[10:200], torch.ones(190), atol=1e-5, rtol=0)


def test_a_warped_voice_is_heard_where_its_frequencies_times_the_factor_are():
    factors = torch.tensor([0.85, 1.0, 1.2])
    warped = VocalTract(40, 0.2).filters(factors)
    torch.testing.assert_close(warped[1], mel_filterbank(40), atol=1e-4, rtol=0)
    for factor, filters in zip(factors.tolist(), warped):
        for hertz in (500, 1000, 2500, 3900):
            bins = (hertz * factor / 8000 * 256).__round__()  # the point of the spectrum that it sounds like
            heard = filters[round(hertz / 8000 * 256)].argmax().item()
            assert abs(heard - mel_filterbank(40)[bins].argmax().item()) <= 1
        top = filters[250:256].sum(0).argmax().item()  # the highest frequencies stay, and no bin runs empty
        assert top == 39 and (filters.sum(0) > 0).all()


def test_the_vocal_tract_is_drawn_for_every_utterance_in_training_only():
    front_end = FbankFrontEnd(8, 40, warp=0.2)
    waves, lengths = torch.stack([noise(8000)] * 3), torch.full((3,), 8000)
    plain = FbankFrontEnd(8, 40).features(waves, lengths)
    assert torch.equal(front_end.eval().features(waves, lengths), plain)
    front_end.train()
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(front_end.features(waves, lengths))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0][0], drawn[0][1])  # the same sound, two voices
    torch.manual_seed(0)
    filters = VocalTract(40, 0.2)(waves)
    torch.manual_seed(0)
    factors = 1 + 0.2 * (2 * torch.rand(3) - 1)
    assert torch.equal(filters, VocalTract(40, 0.0).filters(factors))
    assert VocalTract(40, 0.0).train()(waves) is None


def test_the_floor_is_so_far_below_the_loudest_real_frame():
    front_end = FbankFrontEnd(8, 40, floor=30.0)
    wave = noise(16_000)
    wave[6000:] *= 1e-4  # 80 dB down
    batch = torch.zeros(2, 20_000)
    batch[0, :16_000], batch[1] = wave, 100 * noise(20_000, 1)  # a loud neighbour
    lengths = torch.tensor([16_000, 20_000])
    plain, raised = Fbank(40)(wave[None])[0], front_end.features(batch, lengths)[0]
    lowest = plain.max() - 3 * np.log(10)  # 30 dB in natural logarithms of power
    torch.testing.assert_close(raised[: len(plain)], plain.clamp_min(lowest), atol=1e-4, rtol=0)
    assert (plain < lowest).any() and raised[len(plain) :].abs().sum() == 0


def test_mean_normalisation_takes_out_what_a_microphone_adds_and_keeps_the_corpus_deviation():
    front_end = FbankFrontEnd(8, 40, normalisation="mean")
    front_end.set_statistics(torch.full((40,), 5.0), torch.full((40,), 2.0))
    wave, lengths = noise(16_000), torch.tensor([16_000])
    found = front_end.features(wave[None], lengths)[0]
    plain = Fbank(40)(wave[None])[0]
    torch.testing.assert_close(found, (plain - plain.mean(0)) / 2, atol=1e-4, rtol=0)
    louder = front_end.features(3 * wave[None], lengths)[0]
    torch.testing.assert_close(louder, found, atol=1e-3, rtol=0)


@pytest.fixture
def speech(tmp_path):
    utterances = []
    for i, seconds in enumerate((0.5, 0.8)):
        path = tmp_path / f"{i}.wav"
        sound = noise(round(seconds * 16_000), i) * (1 + 3 * i)
        sound[:3000] *= 1e-4
        soundfile.write(path, sound.numpy(), 16_000)
        utterances.append(Utterance(f"u{i}", path, seconds))
    return utterances


@pytest.mark.parametrize(
    "settings",
    [{}, {"bins": 24}, {"fbank_floor": 60.0}, {"normalisation": "mean", "fbank_floor": 60.0}],
    ids=str,
)
def test_fitted_statistics_give_features_mean_0_and_deviation_1(speech, settings):
    model = SpeechModel(replace(SMALL, **settings)).eval()
    fit_statistics(model, speech)
    rows = []
    for utterance in speech:
        wave = torch.from_numpy(soundfile.read(utterance.audio, dtype="float32")[0])
        rows.append(model.front_end.features(wave[None], torch.tensor([len(wave)]))[0])
    rows = torch.cat(rows)
    torch.testing.assert_close(rows.mean(0), torch.zeros(rows.shape[1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(rows.std(0, unbiased=False), torch.ones(rows.shape[1]), atol=1e-3, rtol=0)


def test_models_that_need_no_statistics_are_left_as_they_are(speech):
    for config in (
        replace(SMALL, front_end="waveform", dim=8),
        replace(SMALL, normalisation="utterance"),
    ):
        model = SpeechModel(config)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        fit_statistics(model, speech)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_statistics_for_another_number_of_bins_are_refused(speech, tmp_path):
    path = tmp_path / "statistics.json"
    save_statistics(path, corpus_statistics(speech, False, 40))
    assert len(load_statistics(path, 40)[0]) == 40
    with pytest.raises(ConfigError, match=r"for 80 bins are 80 finite means .* not 40 and 40; .*--bins 80"):
        load_statistics(path)


def test_a_swap_takes_every_lever():
    old = SpeechModel(replace(SMALL, front_end="waveform"))
    new = swap_front_end(old, bins=24, normalisation="utterance", fbank_channels=12)
    assert new.config == replace(SMALL, bins=24, normalisation="utterance", fbank_channels=12)
    assert (new.front_end.first.in_channels, new.front_end.conv.in_channels) == (24, 12)


@pytest.mark.parametrize(("deep", "channels"), [(True, 16), (False, 0)])
def test_settings_of_earlier_files_are_read(deep, channels):
    """They said whether there is a first convolution, as wide as the model."""
    earlier = {n: value for n, value in SMALL.to_dict().items() if n != "fbank_channels"}
    config = ModelConfig.from_dict(earlier | {"fbank_deep": deep})
    assert config == replace(SMALL, fbank_channels=channels)
    with pytest.raises(ConfigError, match="fbank_deep is 1: true or false"):
        ModelConfig.from_dict(earlier | {"fbank_deep": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bins": 0}, "from 1 to 120"),
        ({"bins": 400}, "from 1 to 120"),
        ({"normalisation": "batch"}, "choose 'corpus' or 'utterance' or 'mean'"),
        ({"fbank_warp": 0.7}, "from 0 to 0.5"),
        ({"fbank_floor": -3.0}, "from 0 to 300"),
        ({"fbank_channels": -1}, "from 0 to 16,384"),
        ({"fbank_kernel": 4}, "an odd number of frames"),
    ],
)
def test_impossible_levers_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **settings)
