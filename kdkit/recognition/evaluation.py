"""What a whole recogniser is worth: error rates with intervals, and its real-time factor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from kdkit.recognition.breakdown import speaker_interval
from kdkit.recognition.decode import Decoder, greedy
from kdkit.recognition.emissions import Emissions, Network, decode_all, emissions
from kdkit.recognition.score import Score, score
from kdkit.speech.manifest import Utterance


@dataclass(frozen=True)
class Evaluation:
    """A score and what it cost. ``network`` and ``decoding`` are seconds of wall clock, ``speech`` seconds of audio.

    ``utterances`` are those that were scored. Files that cannot be read are left out, here and wherever the kit scores
    a recogniser; ``skipped`` has (id, reason) of each.
    ``network`` includes reading files and the front-end; ``decoding`` includes starting processes the first time.
    """

    score: Score
    utterances: tuple[Utterance, ...]
    network: float
    decoding: float
    speech: float
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds of computing for each second of speech, from file to text."""
        return (self.network + self.decoding) / self.speech

    @property
    def speakers(self) -> list[str]:
        return [utterance.speaker for utterance in self.utterances]

    def speaker_interval(self, seed: int = 0) -> tuple[float, float]:
        """95 % interval of the WER over speakers (:func:`kdkit.recognition.breakdown.speaker_interval`)."""
        return speaker_interval(self.score, self.speakers, seed)

    @property
    def cost(self) -> str:
        """The real-time factor and its parts, in words."""
        return (
            f"real-time factor {self.rtf:.4f}, {1 / self.rtf:.0f} times real time: reading and network "
            f"{self.network / self.speech:.4f}, decoding {self.decoding / self.speech:.4f}"
        )


def evaluate(
    network: Network,
    speech: Sequence[Utterance] | Emissions,
    decoder: Decoder = greedy,
    jobs: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Runs and scores a recogniser. ``speech`` may be emissions computed before, which other decoders share; their time
    counts as the network's. ``jobs``: processes that decode."""
    found = speech if isinstance(speech, Emissions) else emissions(network, speech)
    began = time.perf_counter()
    texts = decode_all(decoder, found.log_probs, jobs, found.vocabulary)
    decoding = time.perf_counter() - began
    result = score(found.references, texts, seed, found.vocabulary)
    return Evaluation(result, found.utterances, found.seconds, decoding, found.speech, found.skipped)
