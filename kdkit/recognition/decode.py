"""Decoding: from CTC emissions to text, greedy or by beam search.

CTC (Graves et al. 2006) sums over all alignments of a text. *Greedy* decoding takes the best symbol of every frame,
merges repeats and drops blanks: it follows the single most probable path, which is right when the network is certain.

*Beam search* looks for the most probable text. It goes through the frames and keeps the best prefixes, each scored by
all of its paths together,

    log P_CTC(text)  +  lm_weight * log10 P_LM(text)  +  word_score * words

A lexicon restricts the search to its words, spelled letter by letter in a trie. The search is flashlight's (Kahn et al.
2022) with KenLM (:mod:`kdkit.recognition.search`); its weights are tuned on dev speech
(:func:`kdkit.recognition.tune.tune`).

A decoder reads one *stretch* of speech at a time, from pause to pause (half a second of blanks); a pause ends a word
even if the network emits no boundary (:func:`text_of`). ``evaluate``, ``finetune`` and ``transcribe`` all decode here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from kdkit.common.errors import ConfigError
from kdkit.recognition.arpa import check_arpa
from kdkit.recognition.lm import BOUNDARY, LONGEST_WORD
from kdkit.recognition.search import Search
from kdkit.speech.text import VOCABULARY, Vocabulary

Decoder = Callable[[Tensor, Tensor, Vocabulary], list[str]]  # logits (B, T, V), frames (B,) -> B texts

# Blank frames in a row (0.5 s) that make a pause. Measured: 15 (0.3 s) cut words in two, +0.2 to +0.9 points of
# WER on the test sets, where 25 changes one word in 13,000; in strings of digits and sentences with pauses between
# them, 25 saves 3 to 8 points against no rule, because words on both sides of a pause are no longer joined.
PAUSE = 25
LONGEST = 1500  # frames (30 s) of a stretch without a pause; it ends at a word boundary


def collapse(ids: list[int], blank: int = VOCABULARY.blank) -> list[int]:
    """Frame-wise symbols to labels: repeats are merged, then blanks dropped."""
    kept = [symbol for i, symbol in enumerate(ids) if i == 0 or symbol != ids[i - 1]]
    return [symbol for symbol in kept if symbol != blank]


def greedy(logits: Tensor, frames: Tensor, vocabulary: Vocabulary = VOCABULARY) -> list[str]:
    """Texts of a batch of logits or log-probabilities (B, T, V) with true frame counts (B,); padding is ignored.

    Raises :class:`ConfigError` when V is not the size of the vocabulary or a frame count exceeds T.
    """
    check(logits, frames, vocabulary)
    best = logits.argmax(-1).cpu()
    return [
        vocabulary.decode(collapse(row[:n].tolist(), vocabulary.blank))
        for row, n in zip(best, frames.tolist(), strict=True)
    ]


def check(logits: Tensor, frames: Tensor, vocabulary: Vocabulary) -> None:
    """Raises :class:`ConfigError` unless emissions (B, T, V) fit the vocabulary and the frame counts (B,)."""
    if logits.ndim != 3 or logits.shape[-1] != len(vocabulary):
        raise ConfigError(
            f"emissions have shape {tuple(logits.shape)}; (batch, frames, {len(vocabulary)}) is needed: "
            "one logit for each symbol of the recogniser's vocabulary"
        )
    if len(frames) != len(logits) or bool(torch.any(frames > logits.shape[1])):
        raise ConfigError(
            f"frame counts {frames.tolist()} do not fit emissions of shape {tuple(logits.shape)}"
        )


def text_of(decoder: Decoder, log_probs: Tensor, vocabulary: Vocabulary = VOCABULARY) -> str:
    """Text of one recording's emissions (T, V): stretches are decoded separately, and a pause ends a word."""
    found = decode_stretches(decoder, log_probs, vocabulary)
    return " ".join(text for _, text in found if text)


def decode_stretches(
    decoder: Decoder, log_probs: Tensor, vocabulary: Vocabulary = VOCABULARY
) -> Iterator[tuple[Tensor, str]]:
    """(emissions, text) of every stretch of (T, V), in order."""
    while len(log_probs):
        part = log_probs[: stretch(log_probs, vocabulary)]  # None: to the end
        yield part, decoder(part[None], torch.tensor([len(part)]), vocabulary)[0]
        log_probs = log_probs[len(part) :]


def stretch(log_probs: Tensor, vocabulary: Vocabulary = VOCABULARY) -> int | None:
    """Number of frames up to the middle of the first pause in (T, V) with speech before and after it.

    Without such a pause: None, or, beyond ``LONGEST`` frames, the number up to the last word boundary (all if there is
    none). Only the first ``LONGEST`` frames count, so a stream is cut in the same places as a whole recording.
    """
    best = log_probs[:LONGEST].argmax(-1)
    spoken = torch.nonzero(best != vocabulary.blank).flatten()
    pauses = torch.nonzero(spoken.diff() > PAUSE).flatten()
    if len(pauses):
        before, after = spoken[pauses[0]], spoken[pauses[0] + 1]
        return int(after - (after - before - 1) // 2)
    if len(best) < LONGEST:
        return None
    if vocabulary.boundary is None:
        return len(best)
    boundaries = torch.nonzero(best == vocabulary.boundary).flatten()
    return int(boundaries[-1]) if len(boundaries) and boundaries[-1] > 0 else len(best)


_IMPOSSIBLE = -1e4  # log-probability
_WIDEST = 1_000_000  # hypotheses in a beam
_MOST = 10  # hypotheses that are read off at the end


@dataclass(frozen=True)
class BeamSearch:
    """A beam-search decoder: logits or log-probabilities (B, T, V) and true frame counts (B,) -> B texts.

    Attributes:
        words: the lexicon; None for any spelling.
        lm: an ARPA file of words (with a lexicon) or of letters (without), see :func:`with_language_model`, or None.
        lm_weight: multiplies log10 probabilities, as in flashlight.
        word_score: added for every word, with a lexicon only; above 0 it offsets the LM's preference for few words.
        beam: hypotheses kept after every frame.
        threshold: hypotheses whose score is lower than the best by more are dropped.

    It can be pickled; each process builds the search on first use. Raises :class:`ConfigError` when flashlight-text is
    not installed, and for settings that contradict each other.
    """

    words: tuple[str, ...] | None = field(default=None, repr=False)
    lm: Path | None = None
    lm_weight: float = 1.0
    word_score: float = 0.0
    beam: int = 50
    threshold: float = 25.0

    def __post_init__(self):
        if self.beam < 1 or self.threshold <= 0:
            raise ConfigError(f"beam {self.beam} and threshold {self.threshold} must be more than 0")
        if self.beam > _WIDEST:
            raise ConfigError(f"beam {self.beam}: at most {_WIDEST:,} hypotheses can be kept")
        if self.words is not None and not self.words:
            raise ConfigError("the lexicon has no word; leave it out to allow any spelling")
        longest = max(self.words or (), key=len, default="")
        if len(longest) > LONGEST_WORD:  # flashlight walks the trie by recursion, and would crash the process
            raise ConfigError(
                f"the lexicon has a word of {len(longest):,} letters ({longest[:30]}...): is it a list of words?"
            )

    def __call__(self, logits: Tensor, frames: Tensor, vocabulary: Vocabulary = VOCABULARY) -> list[str]:
        check(logits, frames, vocabulary)
        rows = zip(logits.cpu(), frames.tolist(), strict=True)
        return [next((text for text, _ in self._hypotheses(row[:n], vocabulary)), "") for row, n in rows]

    def alternatives(
        self, logits: Tensor, most: int = 5, vocabulary: Vocabulary = VOCABULARY
    ) -> list[tuple[str, float]]:
        """The up to ``most`` best texts of one utterance's logits (T, V) with their scores, best first."""
        found: dict[str, float] = {}
        for text, score in self._hypotheses(logits, vocabulary):
            found.setdefault(text, score)  # other tokens may spell the same text
        return sorted(found.items(), key=lambda item: -item[1])[:most]

    def _hypotheses(self, logits: Tensor, vocabulary: Vocabulary) -> Iterator[tuple[str, float]]:
        search = _search(self, self.lm and _stamp(self.lm), vocabulary)
        if not len(logits):
            return
        emissions = logits.float().log_softmax(-1)  # (T, V)
        if self.words is not None and vocabulary.boundary is not None:
            # every word of the lexicon ends with a boundary: one more frame emits that of the last word
            emissions = F.pad(emissions, (0, 0, 0, 1), value=_IMPOSSIBLE)
            emissions[-1, vocabulary.boundary] = 0.0
        for numbers, words, score in islice(search(emissions), _MOST):
            letters = self.words is None
            yield (
                vocabulary.decode(collapse(numbers, vocabulary.blank)) if letters else " ".join(words),
                score,
            )


def with_language_model(path: str | Path, words: Sequence[str] | None = None, **settings) -> BeamSearch:
    """A beam search with the language model in the ARPA file ``path``.

    The lexicon of a model of words is ``words``, by default all words of the model; a model of letters
    (``kdkit lm --unit letter``) has none. The file may have gigabytes. Raises :class:`TextError` for another kind of
    file and :class:`ConfigError` for a unigram model, for a lexicon with a model of letters, or where KenLM would need
    more memory than is free.
    """
    model = check_arpa(path)
    free = psutil.virtual_memory().available / 1e9
    if model.gigabytes > free:
        raise ConfigError(
            f"{path}: KenLM needs {model.gigabytes:.1f} GB of memory for its {sum(model.counts):,} n-grams, in every "
            f"process that decodes; {free:.1f} GB are free. Take a pruned model (of LibriSpeech's, 3-gram.pruned.1e-7 "
            "or 3-gram.pruned.3e-7), or end other programs"
        )
    if model.order < 2:
        raise ConfigError(f"{path}: KenLM wants n-grams of order 2 or more; make the model with --order 2")
    known = model.words
    letters = BOUNDARY in known
    if letters and words is not None:
        raise ConfigError(f"{path} is a model of letters, which goes without lexicon: leave the lexicon out")
    lexicon = None if letters else tuple(sorted(set(known if words is None else words)))
    return BeamSearch(lexicon, Path(path), **settings)


def reweighted(search: BeamSearch, lm_weight: float, word_score: float) -> BeamSearch:
    """``search`` with other weights."""
    return replace(search, lm_weight=lm_weight, word_score=word_score)


@lru_cache(maxsize=2)  # a trie and a language model each
def _search(settings: BeamSearch, stamp: object, vocabulary: Vocabulary) -> Search:
    """``stamp``: of the LM's file, so that a new file is read again."""
    lexicon = None
    if settings.words is not None:
        lexicon = {word: _spelling(word, vocabulary) for word in _spelled(settings, vocabulary)}
    return Search(
        len(vocabulary),
        vocabulary.blank,
        vocabulary.blank if vocabulary.boundary is None else vocabulary.boundary,
        lexicon,
        _units(vocabulary),
        settings.lm,
        settings.lm_weight,
        settings.word_score,
        settings.beam,
        settings.threshold,
    )


def _units(vocabulary: Vocabulary) -> list[str]:
    """The symbols' names in a language model of letters, in which blank and silent symbols do not occur."""
    units = []
    for number, symbol in enumerate(vocabulary):
        written = symbol.lower() if vocabulary.is_upper else symbol
        known = symbol in vocabulary.letters and not symbol.isspace()
        units.append(BOUNDARY if number == vocabulary.boundary else written if known else f"<{number}>")
    return units


def _spelled(search: BeamSearch, vocabulary: Vocabulary) -> list[str]:
    """The words that the vocabulary can spell, with a warning if some are left out; without a language model, all."""
    words = [word for word in search.words if search.lm is None or not vocabulary.outside(word)]
    missing = len(search.words) - len(words)
    if not words:
        raise ConfigError(f"not one word of {search.lm} can be written in {vocabulary.known()}")
    if missing:
        told = (
            f"{missing} of {len(search.words)} words of {search.lm} have letters that the recogniser has not"
        )
        warnings.warn(f"{told}: they are left out", stacklevel=2)
    return words


def _spelling(word: str, vocabulary: Vocabulary) -> list[int]:
    end = [] if vocabulary.boundary is None else [vocabulary.boundary]
    return [*vocabulary.encode(word, "lexicon"), *end]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"{path}: no such language model; make one with kdkit lm") from error
    return found.st_size, found.st_mtime_ns
