"""Beam search: against all paths listed, with lexicon and language model, tuned on dev, on several cores, or absent."""

import math
import random
import subprocess
import sys
from collections import defaultdict
from itertools import product

import pytest
import torch

from kdkit.common.errors import ConfigError, KdkitError, TextError
from kdkit.common.parallel import each
from kdkit.recognition.decode import BeamSearch, collapse, greedy, reweighted, with_language_model
from kdkit.recognition.evaluate import Emissions, decode_all, emissions
from kdkit.recognition.lm import estimate, letters_of
from kdkit.recognition.tune import tune
from kdkit.recognition.wer import score
from kdkit.speech.corpora.synthetic.grammar import sentence
from kdkit.speech.manifest import Utterance
from kdkit.speech.text import VOCABULARY

SENTENCES = [sentence(random.Random(i)).split() for i in range(500)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    estimate(SENTENCES, 2).write(folder / "words.arpa")
    estimate(map(letters_of, SENTENCES), 4).write(folder / "letters.arpa")
    return folder


@pytest.fixture(autouse=True)
def _needs_flashlight(request):
    if "without_flashlight" not in request.keywords:
        pytest.importorskip("flashlight.lib.text.decoder.kenlm")


def blurred(text: str, noise: float, seed: int) -> torch.Tensor:
    """Log-probabilities (T, V) that say ``text`` with a blank after each letter, as noisy as wanted."""
    path = [symbol for letter in VOCABULARY.encode(text) for symbol in (letter, 0)]
    logits = 4.0 * torch.nn.functional.one_hot(torch.tensor(path), len(VOCABULARY)).float()
    return (
        logits + noise * torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
    ).log_softmax(-1)


def heard(decoder, rows) -> list[str]:
    return [decoder(row[None], torch.tensor([len(row)]))[0] for row in rows]


@pytest.mark.parametrize("seed", range(20))
def test_the_text_with_the_greatest_sum_over_all_paths_wins(seed):
    symbols = [0, 2, 3, 4]  # blank, e, t, a
    logits = torch.full((1, 5, len(VOCABULARY)), -50.0)
    logits[..., symbols] = 1.5 * torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    log_probs = logits.log_softmax(-1)
    sums = defaultdict(float)
    for path in product(symbols, repeat=5):
        sums[VOCABULARY.decode(collapse(list(path)))] += math.exp(
            sum(log_probs[0, t, s] for t, s in enumerate(path))
        )
    found = BeamSearch(beam=200, threshold=100)(logits, torch.tensor([5]))
    assert found == [max(sums, key=sums.get)]


def test_sure_emissions_decode_as_they_do_greedily():
    rows = [blurred("the little boat", 0.3, 0), blurred("bell", 0.3, 1)]
    assert heard(BeamSearch(), rows) == heard(greedy, rows) == ["the little boat", "bell"]


def test_a_lexicon_allows_its_words_only_and_the_last_one_too():
    row = blurred("the catt sat", 0.3, 0)
    assert heard(BeamSearch(("the", "cat", "sat", "mat")), [row]) == ["the cat sat"]
    assert heard(BeamSearch(("mat",)), [blurred("mat", 0.3, 0)]) == ["mat"]  # no boundary is said after it


def test_a_language_model_decides_where_the_sound_does_not(models):
    log_probs = blurred("the bed is dry", 0.0, 0)
    d, x = VOCABULARY.index("d"), VOCABULARY.index("x")
    frame = 2 * "the bed is dry".index("bed") + 4  # the d could as well be an x, a little rather
    log_probs[frame, [d, x]] = torch.tensor([-0.8, -0.7])
    assert heard(greedy, [log_probs]) == ["the bex is dry"]
    for name in ("words.arpa", "letters.arpa"):
        assert heard(with_language_model(models / name), [log_probs]) == ["the bed is dry"]


@pytest.mark.parametrize("name", ["words", "letters"])
def test_language_models_mend_noisy_emissions(models, name):
    texts = [" ".join(words) for words in SENTENCES[:25]]
    rows = [blurred(text, 1.6, i) for i, text in enumerate(texts)]
    plain = score(texts, heard(greedy, rows)).wer
    assert plain > 0.3
    assert score(texts, heard(with_language_model(models / f"{name}.arpa"), rows)).wer < plain / 2


def test_word_score_changes_the_number_of_words(models):
    rows = [blurred(" ".join(words), 2.5, i) for i, words in enumerate(SENTENCES[:10])]
    search = with_language_model(models / "words.arpa")
    few, many = (sum(len(t.split()) for t in heard(reweighted(search, 1.0, w), rows)) for w in (-5, 5))
    assert few < many


def test_no_frames_and_padding():
    search = BeamSearch()
    logits = torch.cat([blurred("ab", 0.0, 0)[None], blurred("cd", 0.0, 0)[None]])
    assert search(logits, torch.tensor([0, 4])) == ["", "cd"]
    assert search(logits, torch.tensor([2, 4])) == ["a", "cd"]
    assert BeamSearch(("ab",))(logits, torch.tensor([0, 0])) == ["", ""]


def test_a_language_model_made_anew_is_read_anew(tmp_path):
    path = tmp_path / "lm.arpa"
    row = blurred("ab", 0.0, 0)
    row[2, [VOCABULARY.index("b"), VOCABULARY.index("c")]] = -0.7
    for wanted in ("ab", "ac"):
        estimate([[wanted]] * 5, 2).write(path)
        assert heard(with_language_model(path, ["ab", "ac"], lm_weight=3.0), [row]) == [wanted]


def test_settings_that_do_not_fit_are_explained(models, tmp_path):
    with pytest.raises(ConfigError, match=r"100,000 letters \(a{30}\.\.\.\)"):
        BeamSearch(("the", "a" * 100_000))
    with pytest.raises(ConfigError, match="at most 1,000,000"):
        BeamSearch(beam=10**30)
    with pytest.raises(ConfigError, match="leave the lexicon out"):
        with_language_model(models / "letters.arpa", ["the"])
    estimate(SENTENCES, 1).write(tmp_path / "one.arpa")
    with pytest.raises(ConfigError, match="order 2 or more"):
        with_language_model(tmp_path / "one.arpa")
    with pytest.raises(TextError, match="kdkit lm"):
        with_language_model(tmp_path / "none.arpa")
    with pytest.raises(ConfigError, match="no such language model"):
        heard(BeamSearch(("a",), tmp_path / "none.arpa"), [blurred("a", 0.0, 0)])
    with pytest.raises(ConfigError, match="no word"):
        BeamSearch(())
    with pytest.raises(ConfigError, match="must be more than 0"):
        BeamSearch(beam=0)
    with pytest.raises(TextError, match=r"lexicon.*'7'"):
        heard(BeamSearch(("room7",)), [blurred("a", 0.0, 0)])


# ------------------------------------------------------------------------------------------------- tuning, all cores


def dev_emissions(noise: float = 1.8) -> Emissions:
    texts = [" ".join(words) for words in SENTENCES[:12]]
    utterances = tuple(Utterance(f"u{i}", f"u{i}.wav", 1.0, text) for i, text in enumerate(texts))
    return Emissions(utterances, tuple(blurred(t, noise, i) for i, t in enumerate(texts)), 0.0)


def test_tuning_tries_every_pair_and_keeps_the_best(models):
    dev, search = dev_emissions(), with_language_model(models / "words.arpa")
    tuned = tune(search, dev, (0.0, 1.0), (0.0, 1.0), jobs=1, progress=False)
    assert [(t.lm_weight, t.word_score) for t in tuned.trials] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for trial in tuned.trials:
        texts = heard(reweighted(search, trial.lm_weight, trial.word_score), dev.log_probs)
        assert score(dev.references, texts).wer == pytest.approx(trial.wer)
    assert tuned.best.wer == min(t.wer for t in tuned.trials)
    assert (tuned.search.lm_weight, tuned.search.word_score) == (tuned.best.lm_weight, tuned.best.word_score)
    assert "12 dev utterances" in str(tuned)


def test_what_a_search_lacks_is_not_tuned(models):
    def tried(search):
        trials = tune(search, dev_emissions(0.5), (0.5, 1.0), (0.0, 1.0), jobs=1, progress=False).trials
        return [(t.lm_weight, t.word_score) for t in trials]

    assert tried(BeamSearch()) == [(0, 0)]
    assert tried(BeamSearch(("the",))) == [(0, 0), (0, 1)]
    assert tried(with_language_model(models / "letters.arpa")) == [(0.5, 0), (1, 0)]
    with pytest.raises(ConfigError, match="no dev utterances"):
        tune(BeamSearch(), Emissions((), (), 0.0))


def test_several_processes_give_the_same_texts_in_the_same_order(models):
    dev, search = dev_emissions(), with_language_model(models / "words.arpa")
    assert decode_all(search, dev.log_probs, 2) == decode_all(search, dev.log_probs, 1)
    assert decode_all(search, dev.log_probs, 1) == heard(search, dev.log_probs)
    assert decode_all(greedy, dev.log_probs) == heard(greedy, dev.log_probs)


def fails(task: int) -> int:
    if task == 2:
        raise ConfigError("two is too many")
    return task


def dies(task: int) -> None:
    import os

    os._exit(1)


def test_processes_hand_errors_on():
    assert list(each(fails, [0, 1], 2)) == [0, 1]
    with pytest.raises(ConfigError, match="two is too many"):
        list(each(fails, [0, 1, 2, 3], 2))
    with pytest.raises(KdkitError, match="was killed"):
        list(each(dies, [0, 1], 2))
    with pytest.raises(ConfigError, match="jobs"):
        list(each(fails, [0], 0))


@pytest.mark.without_flashlight
def test_without_flashlight_greedy_works_and_beam_search_says_what_to_install():
    code = """
import sys
sys.modules["flashlight"] = None  # as if it were not installed
import torch
from kdkit.recognition.decode import BeamSearch
from kdkit.recognition.search import available
from kdkit.recognition.decode import greedy
from kdkit.common.errors import ConfigError
logits, frames = torch.zeros(1, 3, 29), torch.tensor([3])
print(greedy(logits, frames), available())
try:
    BeamSearch()(logits, frames)
except ConfigError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("[''] False\n")
    assert "pip install" in said and "flashlight-text==0.0.7" in said and "greedy decoding works" in said


# --------------------------------------------------------------------------------------------------- whole test sets


def test_emissions_are_those_of_each_utterance_alone(tmp_path):
    from kdkit.model.speech_model import ModelConfig, SpeechModel
    from kdkit.recognition.ctc import CTCModel
    from kdkit.speech.audio import read_audio, write_audio

    torch.manual_seed(0)
    config = ModelConfig(front_end="fbank", layers=1, dim=32, ffn=32, heads=2, pos_kernel=8, pos_groups=4)
    network = CTCModel(SpeechModel(config)).eval()
    utterances = []
    for i, seconds in enumerate((1.0, 0.4, 0.7)):
        write_audio(tmp_path / f"{i}.wav", 0.1 * torch.randn(round(16_000 * seconds)))
        utterances.append(Utterance(f"u{i}", tmp_path / f"{i}.wav", seconds, "a", f"s{i}"))
    utterances.insert(1, Utterance("gone", tmp_path / "gone.wav", 0.5, "b"))
    with pytest.warns(UserWarning, match="skipped"):
        found = emissions(network, utterances)
    assert [u.id for u in found.utterances] == ["u0", "u1", "u2"]
    assert found.speakers == ["s0", "s1", "s2"] and found.speech == pytest.approx(2.1) and found.seconds > 0
    with torch.no_grad():
        for utterance, row in zip(found.utterances, found.log_probs, strict=True):
            wave = read_audio(utterance.audio)
            alone, _ = network(wave[None], torch.tensor([len(wave)]))
            torch.testing.assert_close(row, alone[0].log_softmax(-1), atol=1e-4, rtol=0)
