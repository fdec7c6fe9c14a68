"""Augmentation: levels are what they say, padding stays silent, nothing happens when nothing is asked for."""

import pytest
import torch

from kdkit.common.errors import ConfigError
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.recognition.ctc import CTCModel, CTCTask
from kdkit.speech.augment import UNCHANGED, AugmentConfig, augment, coloured_noise, equaliser, perturb_speed
from kdkit.speech.batches import collate
from kdkit.speech.manifest import Utterance


def padded(*sizes):
    torch.manual_seed(0)
    batch = collate([torch.randn(size) * 0.1 for size in sizes])
    return batch.waves, batch.lengths


def test_nothing_asked_for_is_nothing_done():
    waves, lengths = padded(16_000, 9_000)
    torch.testing.assert_close(augment(waves, lengths, UNCHANGED), waves)


def test_padding_stays_silent_and_a_seed_repeats():
    waves, lengths = padded(16_000, 9_000)
    torch.manual_seed(3)
    first = augment(waves, lengths)
    torch.manual_seed(3)
    assert torch.equal(first, augment(waves, lengths))
    assert (first[1, 9_000:] == 0).all() and not torch.equal(first, augment(waves, lengths))


def test_a_gain_changes_the_level_of_each_utterance_and_nothing_else():
    waves, lengths = padded(*[1600] * 64)
    louder = augment(waves, lengths, AugmentConfig(equaliser=0, noise=0, gain=(-20, 10)))
    decibels = 20 * (louder.norm(dim=1) / waves.norm(dim=1)).log10()
    assert -20 <= decibels.min() < -15 and 5 < decibels.max() <= 10
    torch.testing.assert_close(louder / louder.norm(dim=1)[:, None], waves / waves.norm(dim=1)[:, None])


@pytest.mark.parametrize("snr", [0.0, 20.0])
def test_the_noise_has_the_ratio_that_was_asked_for(snr):
    waves, lengths = padded(32_000, 12_000)
    noisy = augment(waves, lengths, AugmentConfig(equaliser=0, noise=1, snr=(snr, snr)))
    for wave, heard, length in zip(waves, noisy, lengths.tolist()):
        ratio = wave[:length].square().sum() / (heard - wave)[:length].square().sum()
        assert 10 * ratio.log10().item() == pytest.approx(snr, abs=1.5)


def test_an_equaliser_keeps_the_level_and_changes_the_spectrum():
    waves, lengths = padded(16_000, 16_000)
    shaped = augment(waves, lengths, AugmentConfig(equaliser=1, noise=0))
    torch.testing.assert_close(shaped.norm(dim=1), waves.norm(dim=1), rtol=1e-3, atol=0)
    gain = torch.fft.rfft(shaped).abs() / torch.fft.rfft(waves).abs()
    assert (gain.max(1).values / gain.min(1).values > 2).all()


def test_gains_have_the_deviation_that_was_asked_for():
    hertz = torch.tensor([0.0, 60.0, 8_000.0])
    torch.manual_seed(0)
    decibels = 20 * equaliser(torch.full((4_000, 1), 6.0), hertz).log10()
    assert torch.equal(decibels[:, 0], decibels[:, 1])  # flat below the first point
    torch.testing.assert_close(decibels.std(0), torch.full((3,), 6.0), rtol=0.05, atol=0)
    assert (equaliser(torch.zeros(2, 1), hertz) == 1).all()


def test_noise_is_brighter_or_darker():
    torch.manual_seed(0)
    power = coloured_noise(3_000, torch.linspace(0, 8_000, 101)).abs().square()
    tilt = power[:, 5:30].mean(1) / power[:, 70:].mean(1)
    assert tilt.min() < 1.5 and tilt.max() > 20


def test_evaluation_hears_the_speech_as_it_is():
    torch.manual_seed(0)
    config = ModelConfig(
        layers=1, dim=64, ffn=64, heads=2, pos_kernel=8, pos_groups=4, dropout=0.0, front_end="fbank"
    )
    task = CTCTask(CTCModel(SpeechModel(config)))
    batch = collate([torch.randn(16_000) * 0.1], [Utterance("u", "u.wav", 1.0, text="hello")])
    task.eval()
    assert task(batch)[0] == task(batch)[0]
    task.train()
    assert task(batch)[0] != task(batch)[0]


def test_speed_moves_pitch_and_length_and_leaves_padding_silent():
    waves = torch.sin(2 * torch.pi * 440 * torch.arange(16_000) / 16_000).repeat(2, 1)
    lengths = torch.tensor([16_000, 12_000])
    waves[1, 12_000:] = 0
    for speed in (0.8, 1.25):
        played, new, _ = perturb_speed(waves, lengths, (speed,))
        assert new.tolist() == [16_000 / speed, 12_000 / speed]
        for row, length in zip(played, new.tolist(), strict=True):
            loudest = torch.fft.rfft(row[:length]).abs().argmax().item() * 16_000 / length
            assert abs(loudest - 440 * speed) < 2
            assert not row[length:].any()
    same, as_they_were, _ = perturb_speed(waves, lengths, (1.0,))
    assert same is waves and as_they_were is lengths
    torch.manual_seed(0)
    drawn = {len(perturb_speed(waves, lengths, (0.8, 1.0, 1.25))[0][0]) for _ in range(40)}
    assert drawn == {20_000, 16_000, 12_800}


def test_fine_tuning_at_other_speeds_leaves_out_texts_that_lose_their_room():
    config = ModelConfig(layers=1, dim=16, ffn=16, heads=2, pos_kernel=8, pos_groups=4, front_end="fbank")
    recogniser = CTCModel(SpeechModel(config))
    batch = collate([torch.randn(16_000) * 0.1], [Utterance("u", "u.wav", 1.0, text="a" * 25)])
    fits = CTCTask(recogniser, mask=None, augmenting=None, speeds=(1.0,)).train()
    assert fits(batch)[0] > 0, "25 equal letters need 49 frames, and a second has 49"
    fast = CTCTask(recogniser, mask=None, augmenting=None, speeds=(1.1,)).train()
    assert fast(batch)[0] == 0 and fast.complaints([]) == []
    assert fast.eval()(batch)[0] > 0, "played as it is outside of training"
    with pytest.raises(ConfigError, match="between 0"):
        CTCTask(recogniser, speeds=(3.0,))
