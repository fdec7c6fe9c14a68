"""flashlight's beam search (Kahn et al. 2022) with KenLM, over the numbers of a vocabulary's symbols.

:class:`kdkit.recognition.decode.BeamSearch` is the decoder that uses it; flashlight-text is imported here alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from kdkit.common.errors import ConfigError
from kdkit.speech.transcripts import UNKNOWN

NEEDS_FLASHLIGHT = (
    "beam search needs the package flashlight-text (Python 3.10 to 3.12): pip install 'kdkit[decoding]', or "
    "pip install flashlight-text==0.0.7; greedy decoding works without it"
)


def available() -> bool:
    """Whether flashlight-text is installed."""
    try:
        _flashlight()
    except ConfigError:
        return False
    return True


def _flashlight() -> tuple:
    """Its modules: decoder, dictionary, kenlm. Raises :class:`ConfigError` where they are not installed."""
    names = ("decoder", "dictionary", "decoder.kenlm")
    try:
        return tuple(import_module(f"flashlight.lib.text.{name}") for name in names)
    except ImportError as error:
        raise ConfigError(NEEDS_FLASHLIGHT) from error


class Search:
    """``search(log_probs (T, V))`` -> (numbers, words, score) of each hypothesis, best first.

    Args:
        size: symbols of the vocabulary, V.
        blank, silence: their numbers; silence stands between words.
        lexicon: {word: numbers of its spelling}; None for any spelling, and then the hypotheses have no words.
        units: without a lexicon, the name of every symbol in a language model of letters.
        lm: an ARPA file of words, or of ``units``.
        lm_weight, word_score, beam, threshold: as in :class:`kdkit.recognition.decode.BeamSearch`.

    A text's score sums over all of its paths. Raises :class:`ConfigError` for files that KenLM cannot read, and where
    flashlight-text is not installed.
    """

    def __init__(
        self,
        size: int,
        blank: int,
        silence: int,
        lexicon: Mapping[str, Sequence[int]] | None,
        units: Sequence[str],
        lm: Path | None,
        lm_weight: float,
        word_score: float,
        beam: int,
        threshold: float,
    ):
        decoder, dictionary, kenlm = _flashlight()
        options = {
            "beam_size": beam,
            "beam_size_token": size,
            "beam_threshold": threshold,
            "lm_weight": lm_weight,
            "sil_score": 0.0,
            "log_add": True,  # sum over all paths of a text
            "criterion_type": decoder.CriterionType.CTC,
        }
        self._words = dictionary.Dictionary([*(units if lexicon is None else lexicon), UNKNOWN])
        try:
            with _quiet():
                # kept here: the decoder has only a reference to it
                self._lm = kenlm.KenLM(str(lm), self._words) if lm else decoder.ZeroLM()
        except (RuntimeError, ValueError) as error:  # KenLM's messages have several lines
            raise ConfigError(f"{lm}: the search cannot be built: {str(error).splitlines()[-1]}") from error
        if lexicon is None:
            options = decoder.LexiconFreeDecoderOptions(**options)
            self._decoder = decoder.LexiconFreeDecoder(options, self._lm, silence, blank, [])
            return
        trie = decoder.Trie(size, silence)
        start = self._lm.start(False)
        for word, spelling in lexicon.items():
            number = self._words.get_index(word)
            trie.insert(list(spelling), number, self._lm.score(start, number)[1])
        trie.smear(decoder.SmearingMode.MAX)
        options = decoder.LexiconDecoderOptions(**options, word_score=word_score, unk_score=-math.inf)
        unknown = self._words.get_index(UNKNOWN)
        self._decoder = decoder.LexiconDecoder(options, trie, self._lm, silence, blank, unknown, [], False)

    def __call__(self, log_probs: Tensor) -> Iterator[tuple[list[int], list[str], float]]:
        """``numbers`` has a symbol for every frame, blanks and repeats included, and one more at either end."""
        log_probs = log_probs.to(torch.float32).contiguous()  # flashlight reads memory
        for found in self._decoder.decode(log_probs.data_ptr(), *log_probs.shape):
            words = [self._words.get_entry(number) for number in found.words if number >= 0]
            yield list(found.tokens), words, found.score


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides KenLM's progress bar, which C++ code writes to standard error."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
