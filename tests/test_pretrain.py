"""HuBERT pre-training: labels, masks, crops that keep audio and cluster ids together, and that it learns."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.common.errors import ConfigError, TrainingError
from kdkit.model.codebook import Codebook
from kdkit.model.masking import span_mask
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.speech.batches import collate
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import Utterance
from kdkit.teachers.pretrain import MFCC, Labels, PretrainTask, cluster, nearest

TINY = ModelConfig(
    layers=2,
    dim=32,
    ffn=64,
    heads=2,
    conv_channels=(4, 4, 8, 8, 16, 16, 16),
    pos_kernel=16,
    pos_groups=4,
    dropout=0.0,
)


def utterance(name: str, seconds: float = 1.0) -> Utterance:
    return Utterance(id=name, audio=f"{name}.wav", duration=seconds)


def test_codebook_is_cosine_over_temperature():
    book = Codebook(6, 5, proj=4, tau=0.1)
    hidden = torch.randn(3, 7, 6)
    expected = F.cosine_similarity(book.final_proj(hidden)[:, :, None], book.label_embeddings, dim=-1) / 0.1
    torch.testing.assert_close(book(hidden), expected)
    torch.testing.assert_close(book(hidden * 100 - 0.0).shape, expected.shape)


def test_mfcc_is_kaldis_up_to_scale_and_shift():
    wave = torch.randn(8000) * 0.1
    ours = MFCC()(wave)
    assert ours.shape == (num_frames(8000), 39)
    kaldi = torchaudio.compliance.kaldi.mfcc(
        wave[None] * 32768, num_mel_bins=80, num_ceps=13, dither=0.0, energy_floor=0.0, use_energy=False,
        cepstral_lifter=0.0, high_freq=8000.0,
    )  # fmt: skip
    kaldi = ((kaldi - kaldi.mean(0)) / kaldi.std(0))[::2][: len(ours)]
    torch.testing.assert_close(ours[:, :13], kaldi, atol=2e-2, rtol=0)


@given(st.integers(1, 5), st.integers(10, 300), st.floats(0.1, 0.9))
@settings(max_examples=30, deadline=None)
def test_span_mask_hides_spans(batch, frames, probability):
    mask = span_mask(batch, frames, probability, span=10)
    assert mask.shape == (batch, frames) and mask.any(1).all()
    share = mask.float().mean(1)
    assert (share <= probability + 10 / frames).all()
    for row in mask.tolist():  # every run of hidden frames is at least one span long
        runs = "".join("x" if hidden else " " for hidden in row).split()
        assert min(map(len, runs)) >= 10


def test_clusters_find_what_is_there(tmp_path):
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    truth = {f"u{i}": torch.randint(0, 3, (60,)) for i in range(20)}
    utterances = [utterance(name, 60 * 0.02 + 0.005) for name in truth]

    def features(some):
        for u in some:
            yield u.id, centres[truth[u.id]] + 0.1 * torch.randn(60, 2)

    labels, found = cluster(features, utterances, 3, "test")
    order = nearest(centres, torch.from_numpy(found).float())
    assert sorted(order.tolist()) == [0, 1, 2]
    assert all(torch.equal(labels.ids[n].long(), order[ids]) for n, ids in truth.items())
    labels.save(tmp_path / "labels.safetensors")
    again = Labels.load(tmp_path / "labels.safetensors")
    assert again.clusters == 3 and all(torch.equal(again.ids[n], labels.ids[n]) for n in truth)


def test_clusters_of_no_speech_are_refused():
    with pytest.raises(ConfigError, match="3 clusters of 0 frames"):
        cluster(lambda some: (), [], 3, "test")


def test_nearest_is_the_smallest_distance():
    frames, centres = torch.randn(50, 4), torch.randn(7, 4)
    assert torch.equal(nearest(frames, centres), torch.cdist(frames, centres).argmin(1))


def test_crop_keeps_audio_and_ids_together():
    sizes = [16_000, 9_000, 20_000]
    names = ["a", "b", "c"]
    # every sample holds the number of its frame, so that the crop can be read off the audio
    waves = [torch.arange(n).div(320, rounding_mode="floor").float() for n in sizes]
    labels = Labels(
        {n: torch.arange(num_frames(s)).to(torch.int16) for n, s in zip(names, sizes)}, 100, "count"
    )
    task = PretrainTask(SpeechModel(TINY), Codebook(32, 100, 8), labels)
    batch = collate(waves, [utterance(n) for n in names])
    seen = set()
    for _ in range(20):
        cropped, targets = task.crop(batch)
        assert cropped.shape == (3, 6_400) and targets.shape == (3, num_frames(6_400))  # whole grains
        assert torch.equal(cropped[:, 0].long(), targets[:, 0])
        seen.add(int(targets[2, 0]))
    assert len(seen) > 3  # crops move
    with pytest.raises(TrainingError, match="stranger"):
        task.crop(collate(waves[:1], [utterance("stranger")]))


def test_masked_prediction_learns_a_repeating_pattern():
    """Two tones alternate; hidden frames can be told from their neighbours, and after some steps they are."""
    torch.manual_seed(0)
    time = torch.arange(16_000) / 16_000
    switch = (time * 50 / 8).long() % 2  # a change every 8 frames
    wave = (
        torch.where(switch == 0, torch.sin(2 * np.pi * 300 * time), torch.sin(2 * np.pi * 1500 * time)) * 0.3
    )
    ids = switch[200::320][: num_frames(16_000)].to(torch.int16)
    names = [f"u{i}" for i in range(4)]
    task = PretrainTask(
        SpeechModel(TINY), Codebook(32, 2, 8), Labels(dict.fromkeys(names, ids), 2, "tones"), noise=0.0
    )
    batch = collate([wave] * 4, [utterance(n) for n in names])
    optimiser = torch.optim.Adam(task.parameters(), 2e-3)
    first = task(batch)[0].item()
    for _ in range(120):
        loss, parts = task(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.6 * first and parts["hidden_accuracy"] > 0.8
