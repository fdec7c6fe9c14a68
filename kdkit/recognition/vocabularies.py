"""Vocabularies of CTC models in Hugging Face's format: vocab.json, and the files that name the special tokens."""

from __future__ import annotations

import re
from pathlib import Path

from kdkit.common.errors import CheckpointError, ConfigError
from kdkit.speech.text import Vocabulary
from kdkit.teachers.huggingface import read_json

FILES = ("vocab.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_ROLES = {  # defaults of transformers' Wav2Vec2CTCTokenizer
    "pad_token": "<pad>",
    "word_delimiter_token": "|",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
}
_MARK = re.compile(r"<.+>|\[.+\]")  # "<s>", "[UNK]": silent, declared or not


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The vocabulary of a folder whose CTC head has ``size`` outputs.

    CTC's blank is the padding token, as in transformers; symbols in angle or square brackets and the other special
    tokens are silent, and so are outputs without a symbol.

    Raises :class:`CheckpointError` when a file is missing, or contradicts the others or the head.
    """
    path = folder / "vocab.json"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; it tells which symbols the {size} outputs of the CTC head stand for"
        )
    config, told = read_json(folder / "config.json"), {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        told |= read_json(folder / name) if (folder / name).is_file() else {}
    if "Phoneme" in str(told.get("tokenizer_class")):
        raise CheckpointError(f"{folder}: writes phones, not letters; kdkit's recognisers write letters")
    roles = {role: _content(told.get(role, usual)) for role, usual in _ROLES.items()}
    numbers = _numbers(folder, told)
    symbols = {number: symbol for symbol, number in numbers.items() if 0 <= number < size}
    blank = numbers.get(roles["pad_token"], config.get("pad_token_id"))
    if blank not in symbols:
        raise CheckpointError(
            f"{folder}: which of the {size} outputs is CTC's blank? Neither is pad_token {roles['pad_token']!r} in "
            f"{path.name}, nor is pad_token_id in config.json one of them"
        )
    boundary = numbers.get(roles["word_delimiter_token"])
    boundary = boundary if boundary in symbols and boundary != blank else None
    declared = {roles["bos_token"], roles["eos_token"], roles["unk_token"]}
    declared |= set(map(_content, told.get("additional_special_tokens") or ()))
    silent = {
        number
        for number in range(size)
        if number not in symbols or symbols[number] in declared or _MARK.fullmatch(symbols[number])
    }
    named = tuple(symbols.get(number, f"<{number}>") for number in range(size))
    try:
        return Vocabulary(named, blank, boundary, tuple(silent - {blank, boundary}))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _numbers(folder: Path, told: dict) -> dict[str, int]:
    """{symbol: number} of vocab.json and of added tokens."""
    path = folder / "vocab.json"
    numbers = read_json(path)
    language = told.get("target_lang")
    if language is not None or any(isinstance(value, dict) for value in numbers.values()):
        if not isinstance(numbers.get(language), dict):
            raise CheckpointError(
                f"{path}: vocabularies of {len(numbers)} languages ({', '.join(sorted(numbers)[:5])}, ...), and "
                f"tokenizer_config.json's target_lang, which chooses one, is {language!r}"
            )
        numbers = numbers[language]
    added = folder / "added_tokens.json"
    more = read_json(added) if added.is_file() else {}
    for number, token in (told.get("added_tokens_decoder") or {}).items():
        more[_content(token)] = int(number) if str(number).isdigit() else None
    for symbol, number in (numbers | more).items():
        if not isinstance(number, int) or isinstance(number, bool):
            raise CheckpointError(f"{path}: the number of {symbol!r} is {number!r}; a whole number is needed")
    taken = set(numbers.values())
    return {symbol: number for symbol, number in more.items() if number not in taken} | numbers


def _content(token: object) -> str | None:
    """The text of a special token, which is a string, or an object with the string and settings."""
    return token.get("content") if isinstance(token, dict) else token
