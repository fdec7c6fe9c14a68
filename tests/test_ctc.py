"""The recogniser: characters, what CTC can be trained on, that it learns, that it comes back from a file."""

import warnings

import pytest
import torch
import torch.nn.functional as F
import torchaudio

from kdkit.common.errors import TextError, TrainingError
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.recognition.ctc import (
    CTCModel,
    CTCTask,
    MaskConfig,
    draw_masks,
    load_recogniser,
    save_recogniser,
    trainable,
)
from kdkit.speech.batches import collate
from kdkit.speech.manifest import Utterance
from kdkit.speech.text import VOCABULARY

TINY = ModelConfig(
    front_end="fbank", layers=2, dim=32, ffn=64, heads=2, pos_kernel=16, pos_groups=4, dropout=0.0
)  # fmt: skip


def utterance(name: str, text: str, seconds: float = 1.0) -> Utterance:
    return Utterance(id=name, audio=f"{name}.wav", duration=seconds, text=text)


def test_vocabulary_is_that_of_torchaudios_bundles():
    labels = torchaudio.pipelines.WAV2VEC2_ASR_BASE_960H.get_labels()
    assert tuple(label.lower() for label in labels) == VOCABULARY.symbols


def test_text_there_and_back():
    assert VOCABULARY.decode(VOCABULARY.encode("  The  Cat's hat ")) == "the cat's hat"
    with pytest.raises(TextError, match=r"u7.*'7'.*'é'"):
        VOCABULARY.encode("caf\u00e9 7", "u7")
    with pytest.raises(TextError, match="-"):
        VOCABULARY.encode("well-known")  # the hyphen is the blank's symbol, not a letter


def test_what_cannot_be_learned_is_left_out_and_named():
    utterances = [
        utterance("good", "hello"),
        utterance("digits", "room 7"),
        utterance("empty", ""),
        utterance("long", "x" * 60),
        utterance("double", "ee" * 13),  # 26 letters, 25 blanks between: 51 frames, but there are 49
        utterance("fits", "ee" * 12),  # 24 + 23 = 47
    ]
    with pytest.warns(UserWarning, match=r"left out 4 of 6.*digits"):
        assert [u.id for u in trainable(utterances)] == ["good", "fits"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainable(utterances[:1])
    with pytest.warns(UserWarning, match="no text"), pytest.raises(TrainingError, match="no utterance"):
        trainable([utterance("empty", "")])


def test_ctc_loss_is_per_character_and_ignores_padding():
    torch.manual_seed(0)
    task = CTCTask(CTCModel(SpeechModel(TINY)), mask=None).eval()
    waves = [torch.randn(16_000) * 0.1, torch.randn(9_000) * 0.1]
    utterances = [utterance("a", "abc"), utterance("b", "no")]
    with torch.no_grad():
        together, parts = task(collate(waves, utterances))
        alone = [task(collate([w], [u]))[0] for w, u in zip(waves, utterances)]
    torch.testing.assert_close(together, (alone[0] * 3 + alone[1] * 2) / 5, atol=1e-4, rtol=1e-4)
    assert 0 <= parts["blanks"] <= 1


def test_a_new_head_expects_about_as_many_blanks_as_the_alignments_have():
    torch.manual_seed(0)
    head = CTCModel(SpeechModel(TINY)).head
    believed = head.bias.detach().softmax(-1)[VOCABULARY.blank].item()
    logits = torch.zeros(300, len(VOCABULARY), requires_grad=True)  # 6 s, nothing known
    text = torch.randint(1, len(VOCABULARY), (1, 40))
    F.ctc_loss(logits.log_softmax(-1), text, (300,), (40,), VOCABULARY.blank, reduction="sum").backward()
    aligned = (logits.detach().softmax(-1) - logits.grad)[:, VOCABULARY.blank].mean().item()
    assert abs(believed - aligned) < 0.1
    first = head(torch.randn(1000, TINY.dim)).argmax(-1)  # post-norm features have a variance of about 1
    assert (first == VOCABULARY.blank).float().mean() > 0.95  # no letter is ahead by chance


def test_masking_hides_frames_and_channels_in_training_only():
    torch.manual_seed(0)
    recogniser = CTCModel(SpeechModel(TINY)).eval()
    features = torch.randn(2, 49, 32)
    recogniser.mask_embedding.data.fill_(7.0)
    frames = recogniser.hide(
        features, *draw_masks(MaskConfig(time=0.3, channel=0.0), *features.shape, features.device)
    )
    assert 0 < (frames == 7.0).all(-1).float().mean() < 0.5
    mask = MaskConfig(time=0.0, channel=0.5, channel_span=4)
    channels = recogniser.hide(features, *draw_masks(mask, *features.shape, features.device))
    assert 0 < (channels == 0.0).all(1).float().mean() < 0.6
    waves, lengths = torch.randn(1, 8000) * 0.1, torch.tensor([8000])
    assert torch.equal(recogniser(waves, lengths)[0], recogniser(waves, lengths)[0])  # none unless asked for


def test_it_learns_two_words_and_comes_back_from_a_file(tmp_path):
    torch.manual_seed(0)
    time = torch.arange(4_000) / 16_000
    tone = {
        letter: torch.sin(2 * torch.pi * hz * time) * 0.3
        for letter, hz in zip("lohi", (250, 500, 1500, 3000))
    }
    waves = [torch.cat([tone["l"], tone["o"]]), torch.cat([tone["h"], tone["i"]])]
    batch = collate(waves, [utterance("low", "lo"), utterance("high", "hi")])
    recogniser = CTCModel(SpeechModel(TINY))
    recogniser.model.front_end.set_statistics(torch.full((80,), 8.0), torch.full((80,), 4.0))
    task = CTCTask(recogniser, mask=None, augmenting=None)
    optimiser = torch.optim.Adam(task.parameters(), 3e-3)
    for _ in range(120):
        loss, _ = task(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    from kdkit.recognition.decode import greedy

    with torch.no_grad():
        assert greedy(*recogniser.eval()(batch.waves, batch.lengths)) == ["lo", "hi"]
        save_recogniser(tmp_path / "r.safetensors", recogniser, {"minutes": 10})
        again, meta = load_recogniser(tmp_path / "r.safetensors")
        torch.testing.assert_close(
            again(batch.waves, batch.lengths)[0], recogniser(batch.waves, batch.lengths)[0]
        )
    assert meta["minutes"] == 10 and meta["vocabulary"] == list(VOCABULARY)
