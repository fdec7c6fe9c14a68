"""Augmentation: levels are what they say, padding stays silent, nothing happens when nothing is asked for."""

import pytest
import torch

from kdkit.augment import AugmentConfig, augment, coloured_noise, equaliser
from kdkit.batches import collate
from kdkit.ctc import CTCTask, Recogniser
from kdkit.manifest import Utterance
from kdkit.models import ModelConfig, SpeechModel


def padded(*sizes):
    torch.manual_seed(0)
    batch = collate([torch.randn(size) * 0.1 for size in sizes])
    return batch.waves, batch.lengths


def test_nothing_asked_for_is_nothing_done():
    waves, lengths = padded(16_000, 9_000)
    torch.testing.assert_close(augment(waves, lengths, AugmentConfig(equaliser=0, noise=0)), waves)


def test_padding_stays_silent_and_a_seed_repeats():
    waves, lengths = padded(16_000, 9_000)
    torch.manual_seed(3)
    first = augment(waves, lengths)
    torch.manual_seed(3)
    assert torch.equal(first, augment(waves, lengths))
    assert (first[1, 9_000:] == 0).all() and not torch.equal(first, augment(waves, lengths))


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
    task = CTCTask(Recogniser(SpeechModel(config)))
    batch = collate([torch.randn(16_000) * 0.1], [Utterance("u", "u.wav", 1.0, text="hello")])
    task.eval()
    assert task(batch)[0] == task(batch)[0]
    task.train()
    assert task(batch)[0] != task(batch)[0]
