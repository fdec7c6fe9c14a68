"""n-gram models: probabilities of every history sum to 1, counts worked by hand, KenLM agrees with every score."""

import os
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.common.errors import ConfigError, TextError
from kdkit.recognition import arpa
from kdkit.recognition.arpa import check_arpa, read_arpa
from kdkit.recognition.decode import with_language_model
from kdkit.recognition.lm import (
    END,
    FALLBACK,
    START,
    adjusted_counts,
    discounts_of,
    estimate,
    letters_of,
    lexicon,
    sentences_of,
    words_of,
)
from kdkit.recognition.search import available
from kdkit.speech.corpora.synthetic.grammar import sentence
from kdkit.speech.manifest import Utterance, write_manifest
from kdkit.speech.transcripts import UNKNOWN, Cleaning

SENTENCES = [sentence(random.Random(i)).split() for i in range(400)]
TEXTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=6), min_size=1, max_size=8).filter(any)
HISTORIES = st.lists(st.sampled_from(["a", "b", "c", "d", "never heard", UNKNOWN]), max_size=4)


def total(model, history) -> float:
    return sum(10 ** model.log10_of(word, history) for word in (*model.words, UNKNOWN, END))


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.integers(1, 4), HISTORIES, st.booleans())
def test_probabilities_of_every_history_sum_to_one(text, order, history, beginning):
    model = estimate(text, order)
    assert total(model, ([START] if beginning else []) + history) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_sum_to_one_after_every_history_of_real_text(order):
    model = estimate(SENTENCES, order)
    histories = {g[:-1] for g in model.log10 if g[0] != UNKNOWN}
    for history in random.Random(0).sample(sorted(histories), min(60, len(histories))):
        assert total(model, history) == pytest.approx(1, abs=1e-9)


def test_counts_worked_by_hand():
    unigrams, bigrams = adjusted_counts([["a", "b"], ["a", "b"], ["c", "b"]], 2)
    assert bigrams == {
        (START, "a"): 2, ("a", "b"): 2, ("b", END): 3, (START, "c"): 1, ("c", "b"): 1
    }  # fmt: skip
    assert unigrams["b",] == 2 and unigrams["a",] == 1  # b was seen after a and c, a only at the beginning
    assert unigrams[END,] == 1 and unigrams["c",] == 1


def test_discounts_by_the_formula():
    counts = [1] * 10 + [2] * 4 + [3] * 2 + [4]
    y = 10 / (10 + 2 * 4)
    expected = (1 - 2 * y * 4 / 10, 2 - 3 * y * 2 / 4, 3 - 4 * y * 1 / 2)
    assert discounts_of(counts) == (0.0, *map(pytest.approx, expected))
    assert discounts_of([1, 1, 2]) == (0.0, *FALLBACK)  # no 3 and no 4: nothing to estimate from


def test_one_word_is_enough_and_worked_by_hand():
    model = estimate([["a"]], 1)  # counts: a 1, </s> 1, <unk> 0; all discounts are the fallback's
    gamma = 2 * FALLBACK[0] / 2
    assert 10 ** model.log10_of("a", ()) == pytest.approx((1 - FALLBACK[0]) / 2 + gamma / 3)
    assert 10 ** model.log10_of("b", ()) == pytest.approx(gamma / 3)


def test_kenlm_gives_the_same_scores(tmp_path):
    decoder = pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    dictionary = pytest.importorskip("flashlight.lib.text.dictionary")
    model = estimate(SENTENCES, 3)
    model.write(tmp_path / "lm.arpa")
    known = {word: [[word]] for word in (*model.words, UNKNOWN)}
    words = dictionary.create_word_dict(known)
    kenlm = decoder.KenLM(str(tmp_path / "lm.arpa"), words)
    held_out = [sentence(random.Random(f"other/{i}")).split() for i in range(100)]
    assert model.unknown(held_out) > 0  # so unknown words are compared too
    for text in (*held_out, ["zzz", "zzz"], []):
        state, found = kenlm.start(False), 0.0
        for word in text:
            state, part = kenlm.score(state, words.get_index(word if word in known else UNKNOWN))
            found += part
        found += kenlm.finish(state)[1]
        assert found == pytest.approx(model.score(text), abs=1e-4)


def test_a_longer_history_predicts_held_out_text_better():
    held_out = [sentence(random.Random(f"other/{i}")).split() for i in range(100)]
    one, two, three = (estimate(SENTENCES, order).perplexity(held_out) for order in (1, 2, 3))
    assert one > 2 * two > 2 * three > 10
    unseen = estimate([["a", "b"]], 2).perplexity([["c"]])
    assert unseen > estimate([["a", "b"]], 2).perplexity([["a", "b"]])


def test_the_perplexity_of_no_text_is_refused():
    with pytest.raises(TextError, match="not a single sentence"):
        estimate([["a"]], 1).perplexity([])


def test_a_file_gives_the_same_model_back(tmp_path):
    model = estimate(SENTENCES[:50], 3)
    model.write(tmp_path / "lm.arpa")
    back = read_arpa(tmp_path / "lm.arpa")
    assert back.order == 3 and back.words == model.words and back.log10.keys() == model.log10.keys()
    assert back.log10 == pytest.approx(model.log10, abs=1e-5)
    assert back.backoff == pytest.approx(model.backoff, abs=1e-5)
    facts = check_arpa(tmp_path / "lm.arpa")
    assert facts.words == model.words and facts.order == 3 and sum(facts.counts) == len(model.log10)


@pytest.mark.skipif(not available(), reason="flashlight-text is not installed")
def test_a_model_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "lm.arpa"
    estimate(SENTENCES[:50], 3).write(path)
    assert with_language_model(path).lm == path
    counts = arpa.Facts((), (200_000, 1_000_000, 4_000_000)).gigabytes
    assert counts == pytest.approx(0.100, rel=0.02)  # measured: 100.0 MB
    monkeypatch.setattr(arpa.Facts, "gigabytes", 1e6)
    with pytest.raises(
        ConfigError, match=r"KenLM needs 1000000\.0 GB of memory for its .* Take a pruned model"
    ):
        with_language_model(path)


def test_bad_files_and_texts_are_explained(tmp_path):
    with pytest.raises(TextError, match="kdkit lm"):
        read_arpa(tmp_path / "missing.arpa")
    path = tmp_path / "lm.arpa"
    estimate(SENTENCES[:5], 2).write(path)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2].rsplit("\n", 1)[0] + "\n")
    with pytest.raises(TextError, match="not a whole ARPA file"):
        read_arpa(path)
    path.write_text(whole.replace("\\2-grams:\n", "\\2-grams:\nabc\ta b\n"))
    line = whole.split("\\2-grams:\n")[0].count("\n") + 2
    with pytest.raises(TextError, match=rf"lm.arpa:{line}: not a line of 2-grams"):
        read_arpa(path)
    path.write_text("a novel")
    with pytest.raises(TextError, match="not an ARPA file"):
        read_arpa(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(TextError, match="it is no file"):
        read_arpa(path)
    with pytest.raises(TextError, match="not a single word"):
        estimate([[], []], 2)
    with pytest.raises(ConfigError, match="order"):
        estimate(SENTENCES, 0)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ngram 1=", "ngram 1=-", "'ngram 1=COUNT' is needed"),
        ("ngram 1=", "ngram 1=1", "the head of the file promises 1"),
        ("ngram 2=", "ngram 3=", "'ngram 2=COUNT' is needed"),
        ("\\2-grams:", "\\x-grams:", "the sections of an ARPA file are"),
        ("\\2-grams:", "\\\u00b2-grams:", "the sections of an ARPA file are"),
        ("\\1-grams:", "\\2-grams:", "the sections of an ARPA file are"),
        ("\\data\\", "", "its first line is not"),
        ("\\data\\", "\ufeff\\data\\", "its first line is not"),
        ("ngram 1=", "ngrams 1=", "'ngram 1=COUNT' is needed"),
        ("\t</s>", "\t<unk>", "comes a second time"),
        ("\t</s>", "\t</t>", "lack <unk> or </s>"),
        ("-99\t<s>", "nan\t<s>", "not a line of 1-grams"),
        ("-99\t<s>", "0.5\t<s>", "not a line of 1-grams"),
        ("-99\t<s>", "-99 <s>", "not a line of 1-grams"),
        ("\n\\1-grams:", "\nngram 3=0\n\\1-grams:", "promises n-grams up to 3"),
    ],
)
def test_what_ends_kenlm_is_seen_before(tmp_path, old, new, said):
    """KenLM ends the process, or says something that helps nobody, at most of these."""
    path = tmp_path / "lm.arpa"
    estimate(SENTENCES[:5], 2).write(path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    for read in (read_arpa, check_arpa):
        with pytest.raises(TextError, match=re.escape(said)) as error:
            read(path)
        assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------------------ text


def test_words_of_a_line():
    assert words_of("“Don’t,” she said — well-known!\n") == ["don't", "she", "said", "well", "known"]
    assert words_of("Room 7 at the café") == ["room", UNKNOWN, "at", "the", "cafe"]
    assert words_of("'quoted' o'clock snake_case ...") == ["quoted", "o'clock", "snake", "case"]
    assert words_of("''' - 99") == [UNKNOWN]
    assert words_of("3.5 for AT&amp;T <unk> [laughter]") == [UNKNOWN, "for", UNKNOWN, UNKNOWN]


def test_what_is_dropped_is_counted():
    cleaning = Cleaning()
    assert words_of("yes <COMMA> [noise] café", cleaning) == ["yes", "cafe"]
    assert cleaning.dropped == {"<comma>": 1, "[noise]": 1}
    assert words_of("the 21st", Cleaning(numbers=True)) == ["the", "twenty", "first"]


def test_letters_with_boundaries():
    assert letters_of(["the", "cat"]) == ["t", "h", "e", "|", "c", "a", "t"]
    assert letters_of(["a", UNKNOWN]) == ["a", "|", UNKNOWN]


def test_a_lexicon_names_its_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("The cat's café\n\nthe 7 CATS\n", encoding="utf-8")
    assert lexicon(path) == ("cafe", "cat's", "cats", "the")
    for text, said in (
        ("", "not one word"),
        ("7 8", "not one word"),
        ("a" * 100_000, "a word of 100,000 letters"),
    ):
        path.write_text(text)
        with pytest.raises(TextError, match=rf"words\.txt: {said}"):
            lexicon(path)


def test_sentences_of_text_and_of_a_manifest(tmp_path):
    (tmp_path / "text.txt").write_text("\ufeffA cat.\n\nTwo cats.\n", encoding="utf-8")
    write_manifest(tmp_path / "m.jsonl", [Utterance("u", tmp_path / "u.wav", 1.0, "one dog")])
    found = list(sentences_of([tmp_path / "text.txt", tmp_path / "m.jsonl"]))
    assert found == [["a", "cat"], ["two", "cats"], ["one", "dog"]]
    assert list(sentences_of([tmp_path / "m.jsonl"], "letter")) == [[*"one", "|", *"dog"]]
    with pytest.raises(TextError, match="no such text file"):
        list(sentences_of([tmp_path / "none.txt"]))
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(TextError, match="not a file"):
        list(sentences_of([tmp_path / "pipe.txt"]))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TextError, match="UTF-8"):
        list(sentences_of([tmp_path / "bytes.txt"]))
    with pytest.raises(ConfigError, match="word, letter"):
        list(sentences_of([tmp_path / "text.txt"], "phone"))
