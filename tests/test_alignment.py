"""Estimated phone times against exact ones, word times by hand, what cannot be aligned, torchaudio's bundle offline."""

import warnings
from dataclasses import replace

import pytest
import torch
import torchaudio
from formats import SMALL_LARGE_TORCHAUDIO, shrunk

from kdkit.commands.aligning import align as align_command
from kdkit.common.errors import KdkitError
from kdkit.recognition import alignment
from kdkit.recognition.alignment import (
    Aligner,
    add_phones,
    pronunciation,
    recogniser_aligner,
    word_times,
)
from kdkit.recognition.ctc import load_recogniser
from kdkit.recognition.transcribe import locate_words
from kdkit.speech.audio import SAMPLE_RATE
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.corpora.synthetic.phones import SILENCE
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import frame_phones, read_manifest, write_manifest
from kdkit.speech.text import Vocabulary
from kdkit.teachers import ASSETS
from kdkit.teachers.bundles import BUNDLES

RECOGNISER = ASSETS / "recogniser_teacher_pretrained_60.safetensors"


def agreement(exact, estimated) -> float:
    """Share of the frames that are speech in ``exact`` whose estimated phone is the same."""
    same = total = 0
    for truth, guess in zip(exact, estimated, strict=True):
        frames = num_frames(round(truth.duration * SAMPLE_RATE))
        for a, b in zip(frame_phones(truth, frames), frame_phones(guess, frames), strict=True):
            same, total = same + (a == b != SILENCE), total + (a != SILENCE)
    return same / total


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return build_synthetic(tmp_path_factory.mktemp("corpus"), {"train": 0.3}, progress=False)["train"]


def test_estimates_agree_with_the_exact_times(speech, capsys):
    bare = [replace(utterance, phones=()) for utterance in speech]
    aligner = recogniser_aligner(load_recogniser(RECOGNISER)[0], "the shipped recogniser")
    estimated = add_phones(bare, aligner)
    assert (
        f"phone times of {len(speech)} utterances are estimates: letters aligned by the shipped"
        in capsys.readouterr().out
    )
    assert agreement(speech, estimated) > 0.65
    late = [replace(u, phones=tuple((t + 0.1, p) for t, p in u.phones)) for u in estimated]
    assert agreement(speech, late) < agreement(speech, estimated) - 0.2, "a tenth of a second is noticed"
    for utterance in estimated:
        starts = [start for start, _ in utterance.phones]
        assert starts == sorted(starts) and starts[0] >= 0 and starts[-1] <= utterance.duration + 0.03
    assert add_phones(speech, aligner) == speech, "exact times are kept"


def test_word_times_by_hand():
    vocabulary = Vocabulary(("-", "a", "b", "c"), boundary=None)
    path = [
        0,
        0,
        0,
        0,
        1,
        2,
        2,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        3,
        0,
        0,
        0,
        0,
        0,
    ]  # "ab" in frames 4 to 6, "c" in frame 14
    log_probs = torch.full((20, 4), -10.0)
    log_probs[range(20), path] = 0.0
    aligner = Aligner("hand", None, vocabulary)
    (start, end), second = word_times(log_probs.log_softmax(-1), ["ab", "c"], aligner)
    margin = alignment._MARGIN
    assert (start, end) == pytest.approx((0.0825 - margin, 0.1425 + margin))
    assert second == pytest.approx((0.2825 - margin, 0.3025 + margin))
    as_transcribed = locate_words(log_probs.log_softmax(-1), "ab", vocabulary=vocabulary)
    assert as_transcribed[0].start == pytest.approx(start + margin)
    close = torch.full((20, 4), -10.0)
    close[range(20), [1, 0, 3, *[0] * 17]] = 0.0
    first, second = word_times(close.log_softmax(-1), ["a", "c"], aligner)
    assert first[0] == 0 and first[1] == second[0] == pytest.approx(0.0325), "what lies between is shared"


@pytest.mark.parametrize("sample", [200, 4000, 21_987])
def test_a_letter_is_where_its_sound_is(sample):
    """A sound at one sample; the frame that hears it in its middle says "a"."""
    vocabulary = Vocabulary(("-", "a"), boundary=None)
    middles = torch.arange(num_frames(32_000)) * 320 + 199.5  # a frame hears samples 320 t to 320 t + 399
    log_probs = torch.tensor([[0.0, -9.0]]).repeat(len(middles), 1)
    log_probs[(middles - sample).abs().argmin()] = torch.tensor([-9.0, 0.0])
    (word,) = locate_words(log_probs, "a", vocabulary=vocabulary)
    ((start, end),) = word_times(log_probs, ["a"], Aligner("hand", None, vocabulary))
    for middle in ((word.start + word.end) / 2, (start + end) / 2 if sample > 1000 else 0.0125):
        assert abs(middle - sample / 16_000) <= 0.0101
    assert word.end - word.start == pytest.approx(0.02) and word.start >= 0.0025
    assert sample < 1000 or (start + end) / 2 == pytest.approx((word.start + word.end) / 2)


def test_what_cannot_be_aligned_stays_as_it_is(speech, capsys):
    aligner = recogniser_aligner(load_recogniser(RECOGNISER)[0])
    bare = replace(speech[0], phones=())
    cases = {
        "letters that kdkit's recogniser does not know: ['5']": "5 goats",
        "letters do not fit into": "word " * 200,
        "no words": "",
    }
    for words, text in cases.items():
        assert add_phones([replace(bare, text=text)], aligner) == [replace(bare, text=text)]
        assert "1 could not be aligned, the first" in (said := capsys.readouterr().out) and words in said
    with pytest.raises(KdkitError, match="no phones"):
        pronunciation("'")


def test_a_pronunciation_has_shares_of_the_word():
    (first, p), *_, (last, t) = pronunciation("paint")
    assert (p, t) == ("p", "t") and first == 0 and 0.4 < last < 1


def test_torchaudios_bundle_from_the_cache(tmp_path, monkeypatch, speech):
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path))
    bundle = torchaudio.pipelines.MMS_FA
    monkeypatch.setattr(bundle, "_params", SMALL_LARGE_TORCHAUDIO | {"aux_num_out": 28})
    monkeypatch.setitem(BUNDLES, "MMS_FA", shrunk(BUNDLES["MMS_FA"], SMALL_LARGE_TORCHAUDIO))
    model = torchaudio.models.wav2vec2_model(**SMALL_LARGE_TORCHAUDIO)
    model.aux = torch.nn.Linear(48, 31)  # the file has three more rows, which torchaudio takes out
    folder = tmp_path / "aligners" / "MMS_FA"
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / "model.pt")
    aligner = alignment.bundle_aligner()
    assert aligner.vocabulary.symbols[:2] == ("-", "a") and "'" in aligner.vocabulary
    assert aligner.vocabulary.symbols == bundle.get_labels(star=None)
    wave = torch.randn(16_000)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # torchaudio's, of deprecation
        theirs = bundle.get_model(with_star=False, dl_kwargs={"model_dir": str(folder)})
        expected = theirs(wave[None])[0][0]
    torch.testing.assert_close(aligner.log_probs(wave), expected, atol=1e-4, rtol=1e-4)
    [estimated] = add_phones([replace(speech[0], phones=())], aligner)
    assert estimated.phones


def test_the_command_writes_a_manifest_with_phones(tmp_path, speech):
    write_manifest(tmp_path / "bare.jsonl", [replace(u, phones=()) for u in speech])
    align_command(tmp_path / "bare.jsonl", tmp_path / "phones.jsonl", RECOGNISER)
    assert all(u.phones for u in read_manifest(tmp_path / "phones.jsonl"))
