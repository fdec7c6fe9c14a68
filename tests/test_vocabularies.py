"""Vocabularies: texts there and back, roles of symbols, what a file keeps of them; those of transformers' folders."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.common.errors import CheckpointError, ConfigError, TextError
from kdkit.recognition.vocabularies import read_vocabulary
from kdkit.speech.text import VOCABULARY, Vocabulary, alphabet
from kdkit.speech.transcripts import clean

UPPER = Vocabulary(("A", "B", "|", "<unk>", "'", "<pad>", "Ä"), blank=5, boundary=2, silent=(3,))


@given(st.lists(st.text("abcdefghijklmnopqrstuvwxyz'", min_size=1), max_size=5))
def test_there_and_back(words):
    assert VOCABULARY.decode(VOCABULARY.encode(" ".join(words))) == " ".join(words)


def test_numbers_by_hand():
    assert UPPER.encode(" ab  Bä") == [0, 1, 2, 1, 6]
    assert UPPER.decode([5, 0, 3, 1, 2, 2, 5, 1, 6, 2]) == "ab bä"  # capitals alone mean nothing
    assert UPPER.encode("ba\u0308") == [1, 6], "a letter and its accent are one character"
    both = Vocabulary(("-", "|", "a", "A", "b"))
    assert both.encode("aAB") == [2, 3, 4] and both.decode([2, 3, 4]) == "aAb", "both cases: they stay"
    joined = Vocabulary(("-", "a", "b"), boundary=None)
    assert joined.encode("ab a") == [1, 2, 1] and joined.decode([1, 2, 1]) == "aba"
    several = Vocabulary(("-", "|", "c", "h", "ch", "ß", "ẞ"))
    assert several.encode("chc h") == [4, 2, 1, 3] and several.decode([4, 2, 1, 3]) == "chc h"
    german = Vocabulary(("-", "|", "S", "ß"))
    assert german.is_upper and german.decode(german.encode("sß")) == "sß"


def test_an_alphabet_of_another_language():
    german = alphabet("abcdefghijklmnopqrstuvwxyza\u0308öüß")
    assert german[2 + 26] == "ä" and german.decode(german.encode("große äpfel")) == "große äpfel"
    assert clean("Große Äpfel, señor!", vocabulary=german) == "große äpfel senor"
    assert alphabet("абвя'").encode("я а") == [5, 1, 2], "no Latin letters are needed"
    for letters, why in (
        ("", "there are none"),
        ("ab c", "' ' is none"),
        ("aÄ", "'Ä' is none"),
        ("aa", "'a' twice"),
    ):
        with pytest.raises(ConfigError, match=why):
            alphabet(letters)


def test_what_has_no_symbol_is_named():
    with pytest.raises(
        TextError,
        match=r"^u7: characters outside the alphabet \['7', '\|'\] in 'a 7\|'; known are ' A B Ä and",
    ):
        UPPER.encode("a 7|", "u7")
    assert UPPER.outside("<unk> ab") == list("<>knu") and VOCABULARY.outside("-") == ["-"]
    assert VOCABULARY.known() == "' a-z and space"


def test_a_file_keeps_it():
    assert set(VOCABULARY.to_meta()) == {"vocabulary"}, "files of kdkit's letters stay as they were"
    for vocabulary in (VOCABULARY, UPPER, Vocabulary(("-", "a"), boundary=None)):
        kept = json.loads(json.dumps(vocabulary.to_meta()))
        assert Vocabulary.from_meta(kept) == vocabulary == pickle.loads(pickle.dumps(vocabulary))
    for roles in (
        {"blank": 9},
        {"blank": 1},
        {"silent": 3},
        {"blank": "0"},
        {"blank": 0.0},
        {"silent": [[]]},
        {"x": 1},
        5,
    ):
        with pytest.raises(ConfigError):
            Vocabulary.from_meta({"vocabulary": ["-", "|", "a"], "vocabulary_roles": roles})
    for symbols in (None, "-|a", ["-", 1], ["-", "|", "a", "a"]):
        with pytest.raises(ConfigError):
            Vocabulary.from_meta({"vocabulary": symbols})


# ------------------------------------------------------------------------------------------- folders of Hugging Face

PLAIN = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "A": 5, "B": 6}
FOLDERS = {  # what lies in the folder; blank, boundary, silent, letters
    "transformers' defaults": ({"vocab.json": PLAIN}, 0, 4, (1, 2, 3), "AB"),
    "blank at the end, brackets": (
        {
            "vocab.json": {"a": 0, "'": 1, "|": 2, "-": 3, "b": 4, "[UNK]": 5, "[PAD]": 6},
            "special_tokens_map.json": {"pad_token": "[PAD]", "unk_token": {"content": "[UNK]"}},
            "added_tokens.json": {"<s>": 7, "</s>": 8},  # beyond the head
        },
        6,
        2,
        (5,),
        "a'-b",
    ),
    "tokens added within the head": (
        {
            "vocab.json": {"a": 0, "b": 1, "|": 2, "<pad>": 3},
            "tokenizer_config.json": {
                "added_tokens_decoder": {"4": {"content": "<s>"}, "5": {"content": "é"}}
            },
        },
        3,
        2,
        (4, 6),  # 6 has no symbol
        "abé",
    ),
    "another delimiter": (
        {
            "vocab.json": {"[PAD]": 0, " ": 1, "a": 2, "b": 3, "|": 4, "[UNK]": 5, "é": 6},
            "tokenizer_config.json": {"pad_token": "[PAD]", "word_delimiter_token": " "},
        },
        0,
        1,
        (5,),
        "ab|é",
    ),
    "no delimiter": (
        {
            "vocab.json": {"<pad>": 0, "你": 1, "好": 2, "们": 3, "a": 4, "b": 5, "c": 6},
            "tokenizer_config.json": {"word_delimiter_token": None},
        },
        0,
        None,
        (),
        "你好们abc",
    ),
    "one of several languages": (
        {"vocab.json": {"eng": PLAIN, "deu": {}}, "tokenizer_config.json": {"target_lang": "eng"}},
        0,
        4,
        (1, 2, 3),
        "AB",
    ),
    "a blank that only config.json knows": (
        {
            "vocab.json": {"_": 0, "|": 1, "a": 2, "b": 3, "c": 4, "d": 5, "e": 6},
            "config.json": {"pad_token_id": 0},
        },
        0,
        1,
        (),
        "abcde",
    ),
}


def write(folder, files: dict):
    for name, content in ({"config.json": {}} | files).items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("name", list(FOLDERS))
def test_folders(tmp_path, name):
    files, blank, boundary, silent, letters = FOLDERS[name]
    write(tmp_path, files)
    found = read_vocabulary(tmp_path, 7)
    assert (len(found), found.blank, found.boundary, found.silent) == (7, blank, boundary, silent)
    assert "".join(found.letters) == letters


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, r"vocab.json: no such file; it tells which symbols the 7 outputs"),
        ({"vocab.json": {"eng": PLAIN, "deu": {}}}, "2 languages"),
        ({"vocab.json": {"a": 0, "|": 1}}, "which of the 7 outputs is CTC's blank"),
        ({"vocab.json": {"<pad>": "0"}}, "the number of '<pad>' is '0'"),
        ({"vocab.json": []}, "not a JSON object"),
        (
            {
                "vocab.json": PLAIN,
                "tokenizer_config.json": {"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"},
            },
            "phones",
        ),
    ],
)
def test_folders_without_a_vocabulary_that_fits(tmp_path, files, words):
    write(tmp_path, files)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_vocabulary(tmp_path, 7)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
