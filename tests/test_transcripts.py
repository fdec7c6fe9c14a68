"""The one rule for text: what it makes of what people write, and that everything that reads text goes by it."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kdkit.common.errors import TextError, TrainingError
from kdkit.recognition.ctc import trainable
from kdkit.recognition.evaluate import labelled
from kdkit.recognition.lm import words_of
from kdkit.recognition.wer import score
from kdkit.speech.manifest import Utterance
from kdkit.speech.spelling import spelled
from kdkit.speech.text import VOCABULARY, Vocabulary
from kdkit.speech.transcripts import UNKNOWN, Cleaning, all_letters, clean, cleaned, outside, scorable

ODD = st.text("a1<>[]{}&;ltg$.,:/'-é\u0301\u200d#xが한½™|_ s", max_size=25)


def utterance(name, text="hello", seconds=2.0):
    return Utterance(name, Path(f"{name}.wav"), seconds, text)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("GO DO YOU HEAR", "go do you hear"),
        ("It’s a “well-known” café, isn't it?", "it's a well known cafe isn't it"),
        ("'Tis the dogs' day -- 'really'!", "'tis the dogs' day really"),
        ("room 7", "room 7"),
        ("  two\tspaces \n", "two spaces"),
        ("…", ""),
        ("ﬁne x̂ cafe\u0301", "fine x cafe"),
        ("\ufeffone\u200btwo soft\u00adhyphen", "one two softhyphen"),
        ("a_b|c\\d and/or", "a b c d and or"),
    ],
)
def test_what_can_be_written_is_cleaned(written, expected):
    assert (clean(written) == expected and not outside(clean(written))) or "7" in written


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("AT&T", "at&t"),
        ("AT&amp;T", "at&t"),
        ("AT&amp;amp;T", "at&t"),
        ("100% of $3.50!", "100% of $3.50"),
        ("at 10:30, 1,200 left", "at 10:30 1,200 left"),
        ("f**k @home #1", "f**k @home #1"),
        ("½ cup", "1⁄2 cup"),
        ("Straße", "straße"),  # no accent to take off
        ("i <3 you > me", "i <3 you > me"),  # no tag
        ("two \ufffd", "two \ufffd"),  # bytes that were no text
    ],
)
def test_what_cannot_be_written_stays_to_be_reported(written, expected):
    assert clean(written) == expected and outside(expected)


@pytest.mark.parametrize(
    ("written", "expected", "dropped"),
    [
        ("Yes <COMMA> we do <PERIOD>", "yes we do", ("<comma>", "<period>")),
        ("[laughter] oh {breath} no", "oh no", ("[laughter]", "{breath}")),
        ("&lt;noise&gt; <b>hi</b>", "hi", ("<noise>", "<b>", "</b>")),
        ("♪ la la ♪ Acme™", "la la acme", ("♪", "♪", "™")),
        ("go <unk> on [inaudible] <UNK>", "go <unk> on <unk> <unk>", ()),
        ("&lt;unk&gt; (unintelligible) [?]", "<unk> <unk> <unk>", ()),
    ],
)
def test_tags_are_no_words(written, expected, dropped):
    found = cleaned(written)
    assert (found.text, found.dropped) == (expected, dropped)
    assert bool(outside(found.text)) == (
        "<unk>" in expected
    )  # a word that nobody wrote down: not to be trained on


@pytest.mark.parametrize(
    "text", ["हिन्दी में", "ไทยน้ำ", "й ё", "가한 が", "עִבְרִית", "مَرْحَبًا", "می\u200cخواهم", "தமிழ்"]
)
def test_other_scripts_keep_their_marks(text):
    assert clean(text) == unicodedata.normalize("NFC", text)
    assert clean(unicodedata.normalize("NFD", text)) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("0", "zero"),
        ("42", "forty two"),
        ("20", "twenty"),
        ("110", "one hundred ten"),
        ("1999", "one thousand nine hundred ninety nine"),
        ("300000", "three hundred thousand"),
        ("007", "zero zero seven"),
        ("1234567", "one two three four five six seven"),
    ],
)
def test_numbers_are_spelled_out_on_request(digits, words):
    assert spelled(digits) == words
    assert clean(f"is {digits}?", numbers=True) == f"is {words}"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("the 21st of May", "the twenty first of may"),
        ("112th, 2nd and 1,200th", "one hundred twelfth second and one thousand two hundredth"),
        ("3.5", "three point five"),
        ("0.05", "zero point zero five"),
        ("1,200.5", "one thousand two hundred point five"),
        ("1,234,567", "one million two hundred thirty four thousand five hundred sixty seven"),
        ("the 1990s", "the nineteen nineties"),
        ("the '90s", "the nineties"),
        ("1990's", "nineteen nineties"),
        ("1900s", "nineteen hundreds"),
        ("2000s", "two thousands"),
        ("$5", "five dollars"),
        ("$1", "one dollar"),
        ("$5.50", "five dollars and fifty cents"),
        ("$0.99", "ninety nine cents"),
        ("$1,200.01", "one thousand two hundred dollars and one cent"),
        ("$3.5 million", "three point five million dollars"),
        ("£2 or 20€", "two pounds or twenty euros"),
        ("£1.50, $0.00, ¥1 and ¥5", "one pound and fifty pence zero dollars one yen and five yen"),
        ("1" + 20 * ",000" + "th", " ".join(["one", *60 * ["zero"]]) + "th"),
        ("1,200 & 5%", "one thousand two hundred and five percent"),
        ("AT&T", "at and t"),
        ("10:30", "ten thirty"),
        ("-5°", "minus five degrees"),
        ("mp3", "mp three"),
        ("no 1's", "no one's"),
        ("1/2 cup", "1/2 cup"),  # or the first of February
    ],
)
def test_numbers_and_signs_as_they_are_read(written, read):
    assert clean(written, numbers=True) == read


@settings(deadline=None)
@example("<\u200cA>", False)
@example("0:'S", True)
@example("${¼", True)
@given(st.one_of(st.text(max_size=60), ODD), st.booleans())
def test_cleaning_twice_is_cleaning_once(text, numbers):
    once = clean(text, numbers)
    assert clean(once, numbers) == once
    if not outside(once):
        assert VOCABULARY.decode(VOCABULARY.encode(once)) == once


@settings(deadline=None)
@example("İstanbul ǅ ﬀ Å")
@given(st.one_of(st.text(max_size=60), ODD))
def test_what_prepare_keeps_is_cleaned_later_to_the_same(text):
    kept = clean(text, vocabulary=all_letters())
    assert clean(kept) == clean(text) and clean(kept, vocabulary=all_letters()) == kept


def test_prepare_keeps_the_accents_that_other_recognisers_write():
    german = Vocabulary((*VOCABULARY, *"äöüß"))
    kept = clean("FÜR das Cafe\u0301, Straße!", vocabulary=all_letters())
    assert kept == "für das café straße" and clean(kept) == "fur das cafe straße"
    assert clean(kept, vocabulary=german) == "für das cafe straße"
    assert score([kept], ["fur das cafe straße"]).wer == 0
    assert score([kept], ["für das cafe straße"], vocabulary=german).wer == 0
    assert not outside(clean(kept, vocabulary=german), german)


@pytest.mark.parametrize(
    "text", ["<a" * 20_000 + ">" * 20_000, "&" + "amp;" * 20_000, "[a]" * 20_000, "'" * 50_000]
)
def test_no_text_takes_long(text):
    assert clean(clean(text)) == clean(text)


def test_many_texts_are_counted():
    cleaning = Cleaning()
    for text in ("plain", "AT&T [noise]", "[noise]", "no. 7 & 7"):
        cleaning.add(text)
    assert (cleaning.texts, cleaning.empty, cleaning.changed, cleaning.left_out) == (4, 1, 3, 2)
    assert cleaning.outside == {"&": 2, "7": 1} and cleaning.dropped == {"[noise]": 2}
    assert cleaning.tags == "2 tags and signs dropped: '[noise]' 2 times"


@pytest.mark.filterwarnings("ignore:1 tag")
def test_the_same_words_everywhere():
    text = "“The café”, it’s &quot;well-known&quot; <COMMA> Zoë!"
    words = ["the", "cafe", "it's", "well", "known", "zoe"]
    assert words_of(text) == words
    assert [u.text.split() for u in trainable([utterance("a", text, 9.0)])] == [words]
    assert score([text], ["x"]).references == (" ".join(words),)
    assert [u.text.split() for u in scorable([utterance("a", text)])[0]] == [words]
    assert words_of("7 <unk>") == [UNKNOWN, UNKNOWN]


def test_utterances_without_text_are_not_scored():
    kept, notes = scorable([utterance("a", "A word"), utterance("b", ""), utterance("c", "[noise]")], "mine")
    assert [(u.id, u.text) for u in kept] == [("a", "a word")]
    assert notes[0] == "mine: 2 of 3 utterances left out, for want of a text"
    assert "'[noise]' once" in notes[-1]
    kept, notes = scorable([utterance("a", "Room 7, café"), utterance("b", "plain")], "mine")
    assert "1 of 2 texts cleaned" in notes[0] and "'7' once" in notes[1] and len(kept) == 2
    assert scorable([utterance("a", "Plain words")])[1] == []
    with pytest.warns(UserWarning, match="1 of 1"), pytest.raises(TextError, match="not one of 1 utterances"):
        labelled([utterance("a", "")], "test")


@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["नमस्ते", "привет"], ["2 have characters outside the alphabet", "'п'"]),
        (["room 7", ""], ["1 have characters outside", "1 have no text", "--spell-numbers"]),
        (["a" * 500], ["1 have more text than audio"]),
    ],
)
def test_why_nothing_is_left_to_train_on(texts, words):
    with pytest.raises(TrainingError) as caught:
        trainable([utterance(str(i), text) for i, text in enumerate(texts)])
    assert all(part in str(caught.value) for part in words)
    assert ("outside" in str(caught.value)) == ("outside" in words[0])


def test_letters_of_the_recogniser_are_kept():
    german = Vocabulary(("-", "|", *"abcdefghijklmnopqrstuvwxyzäöüß"))
    capitals = Vocabulary(("-", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÜ"))
    for vocabulary in (german, capitals):
        assert clean("Über »Café« fu\u0308r\u2019s", vocabulary=vocabulary) == "über cafe für's"
    assert clean("Über fu\u0308r") == "uber fur"
    assert outside("straße", german) == "" and outside("straße", capitals) == outside("straße") == "ß"
    [utterance], notes = scorable([Utterance("u", "a.wav", 1.0, "Schön!")], "german", german)
    assert utterance.text == "schön" and "punctuation" in notes[0]
    assert score(["schön", "für"], ["schon", "für"], vocabulary=german).wer == 0.5
    assert score(["schön", "für"], ["schon", "fur"]).wer == 0
    russian = Vocabulary(("-", "|", *"абвгдежзийклмнопрстуфхцчшщъыьэюя"))
    assert clean("Йод, Ёлка", vocabulary=russian) == clean("Йод, Ёлка") == "йод ёлка"
    assert outside("йод", russian) == "" and outside("ёлка", russian) == "ё"
