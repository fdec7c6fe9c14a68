"""A recogniser whose outputs stand for other symbols in another order does everything as the one it was made of."""

import pytest
import torch

from kdkit import Recogniser
from kdkit.common.errors import CheckpointError, ConfigError, TextError, TrainingError
from kdkit.model.checkpoints import load_checkpoint, save_checkpoint
from kdkit.recognition.alignment import add_phones, recogniser_aligner
from kdkit.recognition.ctc import CTCModel, CTCTask, load_recogniser, save_recogniser, trainable
from kdkit.recognition.decode import BeamSearch, greedy, text_of, with_language_model
from kdkit.recognition.evaluate import Emissions, decode_all, emissions, evaluate
from kdkit.recognition.lm import estimate, letters_of
from kdkit.recognition.loading import load_ctc, load_network
from kdkit.recognition.search import available
from kdkit.recognition.tune import tune
from kdkit.speech.batches import Batches
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.text import VOCABULARY, Vocabulary

SHIPPED = "tiny_sw_fbank_distilled_60"
# capitals, backwards, with special symbols between; the blank last but one
SYMBOLS = ("<s>", *reversed([s.upper() for s in VOCABULARY.symbols[1:]]), "<unk>", "<pad>", "</s>")
OTHER = Vocabulary(SYMBOLS, blank=SYMBOLS.index("<pad>"), boundary=SYMBOLS.index("|"), silent=(0, 29, 31))


def translated(recogniser: CTCModel) -> CTCModel:
    """The same recogniser, speaking through ``OTHER``; its silent symbols are next to impossible."""
    other = CTCModel(recogniser.model, OTHER)
    other.window = recogniser.window
    with torch.no_grad():
        other.head.weight.zero_()
        other.head.bias.fill_(-30.0)
        for number, symbol in enumerate(VOCABULARY):
            place = OTHER.blank if number == VOCABULARY.blank else OTHER.index(symbol.upper())
            other.head.weight[place] = recogniser.head.weight[number]
            other.head.bias[place] = recogniser.head.bias[number]
    return other.eval()


@pytest.fixture(scope="module")
def both() -> tuple[CTCModel, CTCModel]:
    recogniser = load_network(SHIPPED)
    return recogniser, translated(recogniser)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return build_synthetic(tmp_path_factory.mktemp("corpus"), {"dev": 0.4}, progress=False)["dev"]


@pytest.fixture(scope="module")
def heard(both, speech) -> tuple[Emissions, Emissions]:
    return tuple(emissions(recogniser, speech) for recogniser in both)


def test_emissions_know_their_vocabulary(heard):
    assert [found.vocabulary for found in heard] == [VOCABULARY, OTHER]
    assert heard[1].log_probs[0].shape[1] == len(OTHER) == 32
    with pytest.raises(ConfigError, match=r"\(batch, frames, 29\) is needed"):
        decode_all(greedy, heard[1].log_probs)


def test_transcripts_times_and_scores(both, speech):
    for utterance in speech:
        one, other = (Recogniser(recogniser).transcribe(utterance.audio) for recogniser in both)
        assert one == other and len(one.words) == len(one.text.split()) > 1
    one, other = (evaluate(recogniser, speech).score for recogniser in both)
    assert one == other and one.wer < 0.9


def test_a_pause_is_one_of_its_blanks(both, heard):
    said = []
    for found in heard:
        silence = torch.full((40, len(found.vocabulary)), -20.0)
        silence[:, found.vocabulary.blank] = 0.0
        joined = torch.cat([found.log_probs[0], silence, found.log_probs[1]])
        said.append(text_of(greedy, joined, found.vocabulary))
    assert said[0] == said[1] == " ".join(decode_all(greedy, heard[0].log_probs[:2]))


@pytest.mark.skipif(not available(), reason="flashlight-text is not installed")
@pytest.mark.parametrize("unit", ["any spelling", "lexicon", "words", "letters"])
def test_beam_search(tmp_path, speech, heard, unit):
    sentences = [utterance.text.split() for utterance in speech]
    words = tuple(sorted({word for sentence in sentences for word in sentence}))
    if unit == "any spelling":
        search = BeamSearch()
    elif unit == "lexicon":
        search = BeamSearch(words)
    else:
        units = sentences if unit == "words" else map(letters_of, sentences)
        estimate(units, 3).write(tmp_path / "lm.arpa")
        search = with_language_model(tmp_path / "lm.arpa")
    texts = [decode_all(search, found.log_probs, 1, found.vocabulary) for found in heard]
    assert texts[0] == texts[1] and len(set(texts[0])) == len(speech)
    one, other = (search.alternatives(found.log_probs[0], 3, found.vocabulary) for found in heard)
    assert [text for text, _ in one] == [text for text, _ in other]
    assert [score for _, score in one] == pytest.approx([score for _, score in other], abs=1e-3)
    if unit == "words":
        tuned = [tune(search, found, (0.5, 2.0), (0.0,), 1, progress=False) for found in heard]
        assert tuned[0].trials == tuned[1].trials


@pytest.mark.skipif(not available(), reason="flashlight-text is not installed")
def test_words_that_its_letters_cannot_spell(tmp_path):
    estimate([["it's", "so"], ["so", "it", "is"]], 2).write(tmp_path / "lm.arpa")
    few = Vocabulary(("-", "|", "s", "o", "i", "t"))
    row = torch.full((7, 6), -9.0)
    row[range(7), [4, 5, 1, 4, 2, 1, 0]] = 0.0
    with pytest.warns(UserWarning, match="1 of 4 words of .* are left out"):
        assert decode_all(with_language_model(tmp_path / "lm.arpa"), [row], 1, few) == ["it is"]
    with pytest.raises(TextError, match="lexicon"):
        decode_all(BeamSearch(("it's",)), [row], 1, few)


def test_losses_and_what_can_be_learned(both, speech):
    batch = next(iter(Batches(speech, 60).epoch()))
    one, other = (CTCTask(recogniser, None, None).eval()(batch) for recogniser in both)
    torch.testing.assert_close(one[0], other[0], atol=1e-4, rtol=1e-4)
    assert one[1]["blanks"] == other[1]["blanks"] > 0
    few = Vocabulary(("-", "|", *"etaonihsrdlumwc"))
    with pytest.warns(UserWarning, match="outside the alphabet"), pytest.raises(TrainingError):
        trainable([u for u in speech if "g" in u.text], few)


def test_phone_times(both, speech):
    bare = [u.__class__(**{**u.__dict__, "phones": ()}) for u in speech[:3]]
    one, other = (add_phones(bare, recogniser_aligner(recogniser)) for recogniser in both)
    assert one == other and all(utterance.phones for utterance in one)


def test_its_files_keep_the_vocabulary(tmp_path, both, speech):
    save_recogniser(tmp_path / "r.safetensors", both[1], {"steps": 1})
    again, meta = load_recogniser(tmp_path / "r.safetensors")
    assert again.vocabulary == OTHER and meta["vocabulary"] == list(SYMBOLS)
    wanted = Recogniser(both[0])(speech[0].audio)
    assert Recogniser.load(tmp_path / "r.safetensors")(speech[0].audio) == wanted
    tensors, meta = load_checkpoint(tmp_path / "r.safetensors")
    save_checkpoint(tmp_path / "r.safetensors", tensors, meta | {"vocabulary": [*SYMBOLS, "%"]})
    with pytest.raises(CheckpointError, match=r"head.bias: \(32,\) in the file, \(33,\) in the model"):
        load_ctc(tmp_path / "r.safetensors")
