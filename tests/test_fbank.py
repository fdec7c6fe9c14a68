"""Fbank against two implementations of Kaldi's, statistics in one pass, SpecAugment, and the front-end on top."""

import json

import kaldi_native_fbank
import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kdkit.common.errors import ConfigError
from kdkit.fbank import (
    Fbank,
    FbankFrontEnd,
    SpecAugment,
    Statistics,
    corpus_statistics,
    fbank_statistics,
    load_statistics,
    save_statistics,
)
from kdkit.model.waveform import KERNELS, STRIDES, WaveformCNN
from kdkit.recognition.export.onnx import EXPORTS
from kdkit.speech.corpora.synthetic import build as synthetic
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import Utterance


def sound(kind: str, samples: int, amplitude: float, offset: float) -> torch.Tensor:
    """A waveform in [-1, 1] of some kind, drawn from its length."""
    generator = torch.Generator().manual_seed(samples)
    wave = torch.randn(samples, generator=generator)
    if kind == "rumble":  # most energy in the lowest bins
        wave = wave.cumsum(0)
        wave = wave / wave.abs().max()
    if kind == "silence":
        wave = torch.zeros(samples)
    if kind == "clipped":
        wave = wave * 100
    return (wave * amplitude + offset).clamp(-1, 1)


def torchaudio_fbank(wave):
    return torchaudio.compliance.kaldi.fbank(
        wave[None] * 32768, num_mel_bins=80, window_type="povey", dither=0.0, energy_floor=0.0
    )


def native_fbank(wave):
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.samp_freq = 16_000
    options.mel_opts.num_bins = 80
    options.energy_floor = 0.0
    online = kaldi_native_fbank.OnlineFbank(options)
    online.accept_waveform(16_000, (wave * 32768).numpy())
    online.input_finished()
    frames = [online.get_frame(i) for i in range(online.num_frames_ready)]
    return torch.from_numpy(np.stack(frames))


def is_loud(fbank):
    """Which bins are within 80 dB of the loudest of their frame."""
    return fbank > fbank.amax(1, keepdim=True) - 80 * np.log(10) / 10


def assert_same(ours, witness, deep=1e-2):
    """Equal to 1e-3 down to 80 dB below the loudest bin of a frame; below, float32 ends, in the witnesses, too."""
    apart = (ours - witness).abs()
    assert apart[is_loud(witness)].max() < 1e-3
    assert apart.max() < deep


KINDS = st.sampled_from(["noise", "rumble", "silence", "clipped"])


@given(
    st.lists(st.integers(400, 40_000), min_size=1, max_size=3),
    KINDS,
    st.floats(1e-4, 1.0),
    st.floats(-0.5, 0.5),
)
@example([22_259], "noise", 0.25, 0.0)  # a bin 89 dB below the loudest, where torchaudio is off by 1.3e-3
@settings(max_examples=30, deadline=None)
def test_fbank_of_a_padded_batch_is_torchaudios_of_each(sizes, kind, amplitude, offset):
    waves = [sound(kind, size, amplitude, offset) for size in sizes]
    ours = Fbank()(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True))
    for row, wave in zip(ours, waves):
        kaldi = torchaudio_fbank(wave)
        assert_same(row[: len(kaldi)], kaldi)
        assert len(kaldi) == (len(wave) - 400) // 160 + 1


@given(st.integers(400, 30_000), KINDS, st.floats(1e-3, 1.0))
@example(8538, "clipped", 0.75)  # a bin 90 dB below the loudest, where torchaudio is off by as much
@settings(max_examples=15, deadline=None)
def test_a_second_witness(samples, kind, amplitude):
    wave = sound(kind, samples, amplitude, 0.0)
    assert_same(Fbank()(wave[None])[0], native_fbank(wave))


def test_a_batch_of_speech_and_both_witnesses():
    """In clean speech, too, some bins lie so far below the loudest that float32 ends; each witness errs there alike."""
    waves = [torch.as_tensor(synthetic.speak("test-clean", number)[0]) for number in range(6)]
    batch = Fbank()(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True))
    for row, wave in zip(batch, waves, strict=True):
        for witness in (torchaudio_fbank(wave), native_fbank(wave)):
            assert_same(row[: len(witness)], witness, deep=0.05)
            assert is_loud(witness).float().mean() > 0.99


def test_beside_a_pure_tone_float32_is_the_limit_not_the_recipe():
    """Bins more than 80 dB below the tone are float noise in every implementation; all others agree."""
    wave = 0.9 * torch.sin(2 * torch.pi * 440 * torch.arange(16_000) / 16_000)
    ours, kaldi = Fbank()(wave[None])[0], torchaudio_fbank(wave)
    assert 0.1 < is_loud(kaldi).float().mean() < 1
    assert_same(ours, kaldi, deep=1)


@given(st.integers(400, 35 * 16_000))
@settings(max_examples=20, deadline=None)
def test_frame_counts_are_the_cnns(samples):
    by_cnn = samples
    for kernel, stride in zip(KERNELS, STRIDES):
        by_cnn = (by_cnn - kernel) // stride + 1
    waves, lengths = torch.zeros(1, samples), torch.tensor([samples])
    assert FbankFrontEnd(4)(waves, lengths).shape[1] == num_frames(samples) == by_cnn
    if samples < 60_000:
        assert WaveformCNN((2,) * 7)(waves, lengths).shape[1] == by_cnn


@pytest.mark.parametrize("normalisation", ["corpus", "utterance"])
def test_gradients_reach_convolution_and_sound(normalisation):
    torch.manual_seed(0)
    front_end = FbankFrontEnd(8, normalisation=normalisation)
    waves = (torch.randn(2, 8000) * 0.1).requires_grad_()
    front_end(waves, torch.tensor([8000, 6000])).square().sum().backward()
    assert front_end.conv.weight.grad.abs().sum() > 0 and front_end.projection.weight.grad.abs().sum() > 0
    assert waves.grad[0].abs().sum() > 0 and waves.grad.isfinite().all()
    assert waves.grad[1, 6400:].abs().sum() == 0  # padding


def test_float32_inside_autocast():
    wave = torch.randn(1, 8000) * 0.1
    with torch.autocast("cpu", torch.bfloat16):
        inside = Fbank()(wave)
    assert inside.dtype == torch.float32 and torch.equal(inside, Fbank()(wave))


@pytest.mark.skipif(not EXPORTS, reason="this torch exports one length of input only")
def test_exported_it_is_the_same():
    fbank, wave = Fbank(), torch.randn(2, 12_345) * 0.1
    expected = fbank(wave)
    shapes = ({0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("samples", min=560)},)
    exported = torch.export.export(fbank, (torch.zeros(3, 8000),), dynamic_shapes=shapes)
    torch.testing.assert_close(exported.module()(wave), expected, atol=1e-3, rtol=0)


def test_utterance_normalisation_takes_out_gain_and_padding():
    front_end = FbankFrontEnd(8, normalisation="utterance").eval()
    wave = sound("noise", 9000, 0.1, 0.0)
    batch = torch.zeros(2, 12_000)
    batch[0, :9000], batch[1] = wave, torch.randn(12_000)
    alone = front_end.features(wave[None], torch.tensor([9000]))[0]
    padded = front_end.features(batch, torch.tensor([9000, 12_000]))[0]
    torch.testing.assert_close(padded[: len(alone)], alone, atol=1e-4, rtol=0)
    assert padded[len(alone) :].abs().sum() == 0
    torch.testing.assert_close(alone.mean(0), torch.zeros(80), atol=1e-4, rtol=0)
    torch.testing.assert_close(alone.std(0, unbiased=False), torch.ones(80), atol=1e-3, rtol=0)
    quieter = front_end.features(0.1 * wave[None], torch.tensor([9000]))[0]
    torch.testing.assert_close(quieter, alone, atol=1e-3, rtol=0)
    silence = front_end.features(torch.zeros(1, 4000), torch.tensor([4000]))
    assert silence.isfinite().all()


@given(st.lists(st.integers(1, 300), min_size=1, max_size=12), st.floats(-1e4, 1e4), st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_one_pass_is_two_passes(sizes, offset, scale):
    generator = torch.Generator().manual_seed(sum(sizes))
    parts = [
        torch.randn(size, 80, generator=generator, dtype=torch.float64) * scale + offset for size in sizes
    ]
    statistics = Statistics()
    for part in parts:
        statistics.update(part)
    whole = torch.cat(parts)
    deviation = (whole - whole.mean(0)).square().mean(0).sqrt()  # a second pass, around the mean
    torch.testing.assert_close(statistics.centre, whole.mean(0), rtol=1e-9, atol=1e-9)
    found = (statistics.squares / statistics.count).sqrt()
    torch.testing.assert_close(found, deviation, rtol=1e-6, atol=1e-9)
    assert statistics.count == len(whole)


@pytest.fixture
def speech(tmp_path):
    utterances = []
    for i, seconds in enumerate((0.5, 0.8)):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, sound("noise", round(seconds * 16_000), 0.1, 0.0).numpy(), 16_000)
        utterances.append(Utterance(f"u{i}", path, seconds))
    return utterances


def test_statistics_of_a_corpus_are_kept_in_a_file(speech, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    broken = Utterance("broken", tmp_path / "bad.wav", 1.0)
    with pytest.warns(UserWarning, match=r"1 of 3 files left out.*bad\.wav"):
        found = corpus_statistics([*speech, broken], progress=False)
    assert found.seconds == pytest.approx(1.3, abs=1e-3)
    path = tmp_path / "statistics.json"
    save_statistics(path, found)
    mean, std = load_statistics(path)
    expected = fbank_statistics(speech)
    torch.testing.assert_close((mean, std), expected)
    front_end = FbankFrontEnd(8)
    front_end.set_statistics(mean, std)
    assert torch.equal(front_end.state_dict()["mean"], mean)  # stored in the checkpoint
    features = torch.cat([front_end.features(*read(u))[0] for u in speech])
    torch.testing.assert_close(features.mean(0), torch.zeros(80), atol=1e-3, rtol=0)


def read(utterance):
    wave = torch.from_numpy(soundfile.read(utterance.audio, dtype="float32")[0])
    return wave[None], torch.tensor([len(wave)])


def test_no_speech_and_no_statistics(tmp_path):
    with pytest.raises(ConfigError, match="no speech to take Fbank statistics of"):
        fbank_statistics([])
    path = tmp_path / "s.json"
    huge, flags = {"mean": [10**30] * 80, "std": [10**400] * 80}, {"mean": [True] * 80, "std": [True] * 80}
    bad = (
        ["x"],
        {"mean": [0.0]},
        {"mean": ["x"], "std": [1]},
        {"mean": [float("nan")] * 80, "std": [1]},
        huge,
        flags,
    )
    for text in (None, "", "{", "[" * 100_000, *map(json.dumps, bad)):
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(text)
        with pytest.raises(ConfigError, match=r"s\.json: .*; make Fbank statistics with 'kdkit statistics'"):
            load_statistics(path)
    for mean, std in (([0.0] * 3, [1.0] * 3), ([0.0] * 80, [0.0] * 80), ([1e39] * 80, [1.0] * 80)):
        path.write_text(json.dumps({"mean": mean, "std": std}))
        with pytest.raises(ConfigError, match=r"s\.json: Fbank statistics for 80 bins are 80 finite"):
            load_statistics(path)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=4), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_spec_augment_masks_no_more_than_it_may(sizes, seed):
    torch.manual_seed(seed)
    frames = torch.tensor(sizes)
    features = torch.ones(len(sizes), max(sizes) + 3, 80)
    masked = SpecAugment().train()(features, frames)
    for row, count in zip(masked, sizes):
        hidden = row == 0
        bins, times = hidden.all(0), hidden.all(1)  # whole bands, whole stretches
        assert torch.equal(hidden, bins[None] | times[:, None])  # nothing else
        assert bins.sum() <= 60 and times.sum() <= min(80, count // 2)
        assert not times[count:].any()  # stretches lie among the real frames


def test_spec_augment_is_for_training_and_repeatable():
    features, frames = torch.ones(8, 300, 80), torch.full((8,), 300)
    mask = SpecAugment()
    assert torch.equal(mask.eval()(features, frames), features)
    mask.train()
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(mask(features, frames))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    widths = torch.stack([(row == 0).all(0).sum() for row in results[0]])
    assert len(set(widths.tolist())) > 3  # every utterance has its own
    assert not torch.equal(features, results[0]) and FbankFrontEnd(8).spec_augment is None  # off by default
