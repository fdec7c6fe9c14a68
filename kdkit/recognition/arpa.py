"""ARPA files of any size, with everything checked: KenLM, which reads them for beam search, aborts on some errors.

facts = check_arpa("lm.arpa")      # line by line: LibriSpeech's whole 3-gram has gigabytes of text
facts.order, facts.words, facts.gigabytes
model = read_arpa("lm.arpa")       # an NGram to compute with: some 300 bytes of memory for each n-gram
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdkit.common.errors import TextError
from kdkit.common.progress import tqdm
from kdkit.recognition.lm import END, START, NGram
from kdkit.speech.transcripts import UNKNOWN

_LONG = 200e6  # bytes of a file that is read for more than a moment
_COUNT = re.compile(r"ngram ([1-9])=\s*([0-9]{1,12})\s*")
# Bytes that KenLM takes for an n-gram: of one word, of more, and of the highest order. Measured with millions of each
# (26, 23.4, 17.6); its hash tables hold 16 and 12 bytes, half as much again for empty places.
_SINGLE, _MIDDLE, _LONGEST = 26, 24, 18


@dataclass(frozen=True)
class Facts:
    """What beam search needs to know of an ARPA file: its words without ``<s>``, ``</s>`` and ``<unk>``, sorted, and
    the number of n-grams of every order.
    """

    words: tuple[str, ...] = field(repr=False)
    counts: tuple[int, ...]

    @property
    def order(self) -> int:
        return len(self.counts)

    @property
    def gigabytes(self) -> float:
        """Memory that KenLM takes, in every process that decodes."""
        middle, longest = (sum(self.counts[1:-1]), self.counts[-1]) if self.order > 1 else (0, 0)
        return (_SINGLE * self.counts[0] + _MIDDLE * middle + _LONGEST * longest) / 1e9


def check_arpa(path: str | Path) -> Facts:
    """Reads an ARPA file line by line; memory: its words, and 8 bytes for each n-gram of one order.

    Raises :class:`TextError`, naming file and line, where counts, the order of sections or a number are wrong, or an
    n-gram occurs twice.
    """
    path, counts, words, hashes = Path(path), [], [], array("q")
    for _, order, text, _, _ in _entries(path):
        while order > len(counts):
            _check_once(path, hashes, len(counts))
            counts.append(0)
            hashes = array("q")
        counts[-1] += 1
        hashes.append(hash(text))
        if order == 1:
            words.append(text)
    _check_once(path, hashes, len(counts))
    return Facts(tuple(sorted(set(words) - {START, END, UNKNOWN})), tuple(counts))


def read_arpa(path: str | Path) -> NGram:
    """Reads the model of an ARPA file. Raises :class:`TextError` as :func:`check_arpa`."""
    longest, log10, backoff = 0, {}, {}
    for where, order, text, value, weight in _entries(Path(path)):
        gram, longest = tuple(text.split(" ")), order
        if gram in log10:
            raise _twice(where, text)
        log10[gram] = value
        if weight is not None:
            backoff[gram] = weight
    return NGram(longest, log10, backoff)


def _entries(path: Path) -> Iterator[tuple[str, int, str, float, float | None]]:
    """(place, order, words, log10 probability, back-off weight) of every n-gram; all but repetitions is checked."""
    order, found, promised, seen = 0, 0, [], set()
    for number, line in enumerate(_lines(path), start=1):
        if order and "\t" in line:
            text, value, weight = _entry(line, order, path, number)
            found += 1
            if order == 1 and text in (END, UNKNOWN):
                seen.add(text)
            yield f"{path}:{number}", order, text, value, weight
        elif line.startswith("\\") and line.endswith("-grams:"):
            _check_count(order, promised, found, path, number)
            order, found = order + 1, 0
            if line != f"\\{order}-grams:" or order > len(promised):
                raise TextError(
                    f"{path}:{number}: {line[:80]!r}: the sections of an ARPA file are \\1-grams:, \\2-grams: ..."
                )
        elif line == "\\end\\":
            _check_count(order, promised, found, path, number)
            break
        elif not order and line.startswith("ngram "):
            count = _COUNT.fullmatch(line)
            if not count or int(count[1]) != len(promised) + 1:
                raise TextError(
                    f"{path}:{number}: {line[:80]!r}: 'ngram {len(promised) + 1}=COUNT' is needed here"
                )
            promised.append(int(count[2]))
        elif order and line:
            _entry(line, order, path, number)  # says what is wrong
    else:
        raise TextError(
            f"{path}: no \\end\\ line, so this is not a whole ARPA file; make it again with kdkit lm"
        )
    if order != len(promised) or not order:
        raise TextError(
            f"{path}: the head promises n-grams up to {len(promised)}, the file has them up to {order}"
        )
    if len(seen) < 2:
        raise TextError(
            f"{path}: the unigrams lack {UNKNOWN} or {END}; make the model with kdkit lm, or lmplz"
        )


def _lines(path: Path) -> Iterator[str]:
    """Lines without their ends. Raises :class:`TextError` for what is no text, or has another head."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        size = path.stat().st_size
        bar = tqdm(desc=f"checking {path.name}", total=size, unit="B", unit_scale=True, disable=size < _LONG)
        with open(path, encoding="utf-8", newline="\n") as file, bar:
            head = True
            for line in file:
                bar.update(len(line))
                line = line.strip("\r\n ")
                if head and line:
                    if line != "\\data\\":
                        break
                    head = False
                yield line
    except FileNotFoundError:
        raise TextError(f"{path}: no such language model; make one with kdkit lm") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"{path}: cannot be read as text ({error}); an ARPA file is needed") from error
    if head:
        raise TextError(f"{path}: not an ARPA file: its first line is not \\data\\; make one with kdkit lm")


def _check_count(order: int, promised: list[int], found: int, path: Path, number: int) -> None:
    """At the end of a section: raises :class:`TextError` unless its n-grams are as many as the header says."""
    if order and found != promised[order - 1]:
        raise TextError(
            f"{path}:{number}: {found} {order}-grams; the head of the file promises {promised[order - 1]}"
        )


def _entry(line: str, order: int, path: Path, number: int) -> tuple[str, float, float | None]:
    """The n-gram of a line, its log10 probability, and its back-off weight if there is one."""
    try:
        value, text, *rest = line.split("\t")
        log10, weights = float(value), [float(weight) for weight in rest]
        spaces = text.count(" ")
        if (
            spaces != order - 1
            or not text
            or (spaces and not all(text.split(" ")))
            or len(weights) > 1
            or not (log10 <= 0 and math.isfinite(log10) and all(map(math.isfinite, weights)))
        ):
            raise ValueError
    except ValueError:
        raise TextError(
            f"{path}:{number}: not a line of {order}-grams of an ARPA file (log10 probability, tab, words, and "
            f"for all but the longest a tab and the back-off weight): {line[:80]!r}"
        ) from None
    return text, log10, weights[0] if weights else None


def _check_once(path: Path, hashes: array, order: int) -> None:
    """Raises :class:`TextError` where an n-gram of that order occurs twice. Where two have one hash, the file is read
    again, to see whether they are one.
    """
    if not hashes:
        return
    found = np.frombuffer(hashes, np.int64)
    found.sort()  # in place
    suspects = set(found[1:][found[1:] == found[:-1]].tolist())
    if not suspects:
        return
    seen: set[str] = set()
    for where, now, text, _, _ in _entries(path):
        if now == order and hash(text) in suspects:
            if text in seen:
                raise _twice(where, text)
            seen.add(text)


def _twice(where: str, text: str) -> TextError:
    return TextError(f"{where}: {text[:80]!r} comes a second time")
