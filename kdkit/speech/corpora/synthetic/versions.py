"""The versions of the synthetic corpus: what is said, who says it, and how it is recorded.

Version 1 has four hundred words, a hundred voices, and noise and echoes in "test-other" only. Version 2 asks what
pre-training is for: labels of few voices (four say the first ten minutes of "train", 24 the first hour), words that
these minutes do not contain, and unlabelled speech of hundreds of voices in seven accents, in quiet and noisy rooms.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from kdkit.speech.corpora.synthetic import grammar, open_grammar, voices
from kdkit.speech.corpora.synthetic.acoustics import Place, add_noise, recorded, reverberate
from kdkit.speech.corpora.synthetic.grammar import Uniform
from kdkit.speech.corpora.synthetic.voices import Speaker

# first utterances of "train" of version 2: they last more than 10 and 60 minutes
OF_FOUR, OF_MANY = 300, 1600


class Version(ABC):
    """What the builder (:mod:`kdkit.speech.corpora.synthetic.build`) needs to know.

    `name` is that of the folder: change it whenever the speech would change. `minutes` are the splits and their usual
    lengths.
    """

    name: str
    minutes: ClassVar[dict[str, float]]

    @abstractmethod
    def spoken(self, rng: Uniform) -> str:
        """A sentence with the punctuation that shapes its melody."""

    @abstractmethod
    def speaker(self, split: str, number: int, rng: Uniform) -> Speaker:
        """Who says utterance `number` of a split."""

    @abstractmethod
    def record(
        self,
        wave: np.ndarray,
        split: str,
        speaker: Speaker,
        seed: int,
        rng: Uniform,
        noise: np.random.Generator,
    ) -> np.ndarray:
        """`wave` (samples,) as it sounds in its room, with its noise and at its level."""


class Version1(Version):
    name = "synthetic-v1"
    minutes: ClassVar = {
        "unlabelled": 600.0,
        "train": 60.0,
        "dev": 5.0,
        "test-clean": 10.0,
        "test-other": 10.0,
    }

    def spoken(self, rng):
        return grammar.spoken(rng)

    def speaker(self, split, number, rng):
        return _any(voices.SPEAKERS[split], rng)

    def record(self, wave, split, speaker, seed, rng, noise):
        if split == "test-other":
            wave = reverberate(wave, seconds=0.1 + 0.4 * rng.random(), rng=noise)
            wave = add_noise(wave, snr=5 + 15 * rng.random(), slope=2 * rng.random(), rng=noise)
        else:
            wave = add_noise(wave, snr=45 + 15 * rng.random(), slope=0.0, rng=noise)
        return _at_peak(wave, -(1 + 11 * rng.random()))


class Version2(Version):
    name = "synthetic-v2"
    minutes: ClassVar = Version1.minutes | {"dev-other": 5.0}

    def spoken(self, rng):
        return open_grammar.spoken(rng)

    def speaker(self, split, number, rng):
        if split == "train" and number < OF_MANY:
            few = voices.FEW[:4] if number < OF_FOUR else voices.FEW
            return few[number % len(few)]
        return _any(voices.CROWD[split], rng)

    def record(self, wave, split, speaker, seed, rng, noise):
        """Labelled speakers have one microphone and one room each, unlabelled ones another for every utterance."""
        noisy = split.endswith("other") or (split == "unlabelled" and rng.random() < 0.5)
        own = rng if split == "unlabelled" else random.Random(f"{self.name}/{seed}/{split}/{speaker.id}")
        place = Place(
            reverberation=0.15 + 0.4 * own.random() if noisy else 0.05 + 0.15 * own.random(),
            snr=8 + 17 * rng.random() if noisy else 30 + 20 * rng.random(),
            slope=2 * own.random(),
            tilt=6 * own.random() - 3,
            lowest=40 + 160 * own.random(),
        )
        level = -(4 + 14 * own.random())
        return _at_peak(recorded(wave, place, noise), level - 6 * rng.random())


VERSIONS: dict[int, Version] = {1: Version1(), 2: Version2()}


def _any(speakers: tuple[Speaker, ...], rng: Uniform) -> Speaker:
    return speakers[int(rng.random() * len(speakers))]


def _at_peak(wave: np.ndarray, level: float) -> np.ndarray:
    """`wave` with its largest sample at `level` dB of full scale."""
    return wave * (10 ** (level / 20) / np.abs(wave).max())
