"""n-gram language models: text in, interpolated modified Kneser-Ney estimates out, in the ARPA format of all decoders.

Chen and Goodman (1998), in the form of Heafield et al. (2013, KenLM's lmplz). A discount, which depends on whether a
count is 1, 2, or 3 and more, is subtracted from every count; the mass freed goes to the model of one order less:

    p(w | h) = (a(h w) - D(a(h w))) / a(h .)  +  gamma(h) p(w | h')        h' = h without its first word

a is the count of h w for n-grams of the highest order and for those at the start of a sentence; for others it is the
number of different words seen *before* h w: "francisco" is frequent, but follows one word only. The unigram model is
interpolated with the uniform distribution, so that unseen words ("<unk>") have a probability, too.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdkit.common.errors import ConfigError, TextError
from kdkit.common.files import write_text
from kdkit.speech.manifest import read_manifest
from kdkit.speech.text import VOCABULARY, Vocabulary
from kdkit.speech.transcripts import UNKNOWN, Cleaning, outside

UNITS = ("word", "letter")
LONGEST_WORD = 1000  # letters: flashlight builds its trie by recursion
START, END = "<s>", "</s>"
BOUNDARY = "|"  # between words, in a model of letters
NEVER = -99.0  # log10 probability of <s>, which is never predicted
FALLBACK = (0.5, 1.0, 1.5)  # discounts for texts too small or too regular to estimate them, as in lmplz

Gram = tuple[str, ...]


@dataclass(frozen=True)
class NGram:
    """A back-off model: log10 probabilities of n-grams and log10 back-off weights of histories, as in ARPA files."""

    order: int
    log10: dict[Gram, float] = field(repr=False)
    backoff: dict[Gram, float] = field(repr=False)

    @property
    def words(self) -> tuple[str, ...]:
        """The model's words, sorted, without ``<s>``, ``</s>`` and ``<unk>``."""
        return tuple(sorted(g[0] for g in self.log10 if len(g) == 1 and g[0] not in (START, END, UNKNOWN)))

    def log10_of(self, word: str, history: Sequence[str]) -> float:
        """log10 p(word | history); unknown words count as ``<unk>``."""
        known = [w if (w,) in self.log10 else UNKNOWN for w in (*history, word)][-self.order :]
        gram, weight = tuple(known), 0.0
        while gram not in self.log10:
            weight += self.backoff.get(gram[:-1], 0.0)
            gram = gram[1:]
        return weight + self.log10[gram]

    def score(self, sentence: Sequence[str]) -> float:
        """log10 probability of a sentence, including its end."""
        words = (START, *sentence, END)
        return sum(
            self.log10_of(words[i], words[max(0, i - self.order + 1) : i]) for i in range(1, len(words))
        )

    def perplexity(self, sentences: Sequence[Sequence[str]]) -> float:
        """Perplexity per word, ends of sentences counted. Raises :class:`TextError` for no sentences."""
        if not sentences:
            raise TextError("no perplexity of no text: there is not a single sentence in it")
        total = sum(len(sentence) + 1 for sentence in sentences)
        return 10 ** (-sum(map(self.score, sentences)) / total)

    def unknown(self, sentences: Iterable[Sequence[str]]) -> float:
        """Share of words that are not in the model."""
        found = [w != UNKNOWN and (w,) in self.log10 for sentence in sentences for w in sentence]
        return 1 - sum(found) / max(1, len(found))

    def write(self, path: str | Path) -> None:
        """Writes an ARPA file, atomically."""
        orders = defaultdict(list)
        for gram in sorted(self.log10):
            orders[len(gram)].append(gram)
        lines = ["\\data\\", *(f"ngram {n}={len(orders[n])}" for n in range(1, self.order + 1))]
        for n in range(1, self.order + 1):
            lines += ["", f"\\{n}-grams:"]
            for gram in orders[n]:
                line = f"{self.log10[gram]:.7g}\t{' '.join(gram)}"
                lines.append(line + (f"\t{self.backoff[gram]:.7g}" if gram in self.backoff else ""))
        write_text(Path(path), "\n".join([*lines, "", "\\end\\", ""]))


def estimate(sentences: Iterable[Sequence[str]], order: int = 3) -> NGram:
    """Estimates an interpolated modified Kneser-Ney model from sentences (lists of words, or of letters).

    Memory: some 300 bytes for each different n-gram, so texts of up to about ten million words. Raises
    :class:`ConfigError` for an order below 1 and :class:`TextError` for a text without a word.
    """
    if order < 1:
        raise ConfigError(f"the order of an n-gram model is 1 or more, not {order}")
    counts = adjusted_counts(sentences, order)
    if not any(gram[0] not in (START, END) for gram in counts[0]):
        raise TextError("a language model needs text: there is not a single word in it")
    counts[0].pop((START,), None)
    counts[0].setdefault((UNKNOWN,), 0)
    probability: dict[Gram, float] = {}
    gamma: dict[Gram, float] = {}
    for counted in counts:  # from the shortest to the longest
        discounts = discounts_of(counted.values())
        totals, given = Counter(), Counter()
        for gram, count in counted.items():
            totals[gram[:-1]] += count
            given[gram[:-1]] += discounts[min(count, 3)]
        for history, total in totals.items():
            gamma[history] = given[history] / total
        for gram, count in counted.items():
            history = gram[:-1]
            shorter = probability[gram[1:]] if history else 1 / len(counted)
            own = (count - discounts[min(count, 3)]) / totals[history]
            probability[gram] = own + gamma[history] * shorter
    log10 = {gram: math.log10(p) for gram, p in probability.items()} | {(START,): NEVER}
    backoff = {history: math.log10(weight) for history, weight in gamma.items() if history}
    return NGram(order, log10, backoff)


def adjusted_counts(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[Gram]]:
    """For n = 1 to ``order``: the count of each n-gram of the highest order or at the start of a sentence, for others
    the number of different words before it.
    """
    counts: list[Counter[Gram]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        words = (START, *sentence, END)
        for stop in range(1, len(words) + 1):
            if stop >= order:
                counts[-1][words[stop - order : stop]] += 1
            if stop < order:
                counts[stop - 1][words[:stop]] += 1  # start of a sentence
    for n in range(order - 1, 0, -1):
        for gram in counts[n]:
            counts[n - 1][gram[1:]] += 1  # gram[0] is one more word before the rest
    return counts


def discounts_of(counts: Iterable[int]) -> tuple[float, float, float, float]:
    """(0, D1, D2, D3+) from the numbers of n-grams with counts 1 to 4 (Chen and Goodman 1998, equation 26)."""
    t = Counter(count for count in counts if 1 <= count <= 4)
    if not all(t[c] for c in (1, 2, 3, 4)):
        return (0.0, *FALLBACK)
    y = t[1] / (t[1] + 2 * t[2])
    found = tuple(c - (c + 1) * y * t[c + 1] / t[c] for c in (1, 2, 3))
    return (0.0, *(found if all(0 < d < c for c, d in enumerate(found, start=1)) else FALLBACK))


def sentences_of(
    paths: Iterable[str | Path], unit: str = "word", cleaning: Cleaning | None = None
) -> Iterator[list[str]]:
    """Sentences of text files (a line each) and of manifests (``.jsonl``: their transcripts), as lists of units.

    ``cleaning`` has the vocabulary, says whether numbers are spelled out, and counts what was dropped.
    Raises :class:`TextError` for a file that is missing or not UTF-8, :class:`ConfigError` for another unit.
    """
    if unit not in UNITS:
        raise ConfigError(f"unit is {unit!r}: choose one of {', '.join(UNITS)}")
    for path in map(Path, paths):
        for line in _lines(path):
            words = words_of(line, cleaning)
            if words:
                yield words if unit == "word" else letters_of(words)


def lexicon(path: str | Path, vocabulary: Vocabulary = VOCABULARY) -> tuple[str, ...]:
    """The different words of a text file or manifest that ``vocabulary`` can write, sorted.

    Raises :class:`TextError`, naming the file, when there is none, or one of over 1,000 letters.
    """
    sentences = sentences_of([path], cleaning=Cleaning(vocabulary))
    words = sorted({word for sentence in sentences for word in sentence} - {UNKNOWN})
    if not words:
        raise TextError(f"{path}: not one word for a lexicon in it; give a list of words, or any text")
    longest = max(words, key=len)
    if len(longest) > LONGEST_WORD:
        raise TextError(
            f"{path}: a word of {len(longest):,} letters ({longest[:30]}...): is it a list of words?"
        )
    return tuple(words)


def words_of(line: str, cleaning: Cleaning | None = None) -> list[str]:
    """The words of a line, cleaned by the rule of :mod:`kdkit.speech.transcripts`.

    A word with a character outside the vocabulary of ``cleaning`` (default: kdkit's letters) becomes ``<unk>``.
    """
    cleaning = cleaning or Cleaning()
    return [UNKNOWN if outside(word, cleaning.vocabulary) else word for word in cleaning.add(line).split()]


def letters_of(words: Sequence[str]) -> list[str]:
    """Words as letters with ``|`` between words, for a model of letters; ``<unk>`` stays one unit."""
    letters: list[str] = []
    for i, word in enumerate(words):
        letters += [BOUNDARY] if i else []
        letters += [word] if word == UNKNOWN else word
    return letters


def _lines(path: Path) -> Iterator[str]:
    if path.suffix == ".jsonl":
        yield from (utterance.text for utterance in read_manifest(path))
        return
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is a folder or a pipe, not a file")
        with open(path, encoding="utf-8-sig") as file:  # line by line: texts may be large
            yield from file
    except FileNotFoundError:
        raise TextError(f"{path}: no such text file; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(
            f"{path}: cannot be read as UTF-8 text ({error}); give plain text, one sentence a line"
        ) from error
